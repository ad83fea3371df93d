use super::*;

#[test]
fn errors_mean_what_their_status_and_text_say() {
    let kind =
        |status: u16, text: &str| failure(Operation::Create, StatusCode::from_u16(status).expect("a status"), None, text).kind;
    // Recorded from a real agent.
    assert_eq!(kind(500, "Enforcing job modify index 0: job already exists"), ErrorKind::Conflict);
    assert_eq!(kind(500, "1 error occurred:\n\t* Missing job task groups\n\n"), ErrorKind::Invalid);
    assert_eq!(kind(500, "1 error occurred:\n\t* job \"a\" is in nonexistent node pool \"gpu\"\n\n"), ErrorKind::Invalid);
    assert_eq!(kind(400, "unexpected EOF"), ErrorKind::Invalid);
    assert_eq!(kind(403, "Permission denied"), ErrorKind::Denied);
    assert_eq!(kind(404, "job not found"), ErrorKind::NotFound);
    assert_eq!(kind(429, ""), ErrorKind::Throttled { retry_after: None });
    assert_eq!(kind(500, "No cluster leader"), ErrorKind::Unavailable);
    assert_eq!(kind(500, "rpc error: Permission denied"), ErrorKind::Denied);
    assert_eq!(kind(502, "<html>"), ErrorKind::Unavailable);
}

#[test]
fn the_answer_to_a_conflict_of_variables_is_not_repeated() {
    let error = failure(Operation::Create, StatusCode::CONFLICT, None, r#"{"Items":{"PASSWORD":"s3cret"}}"#);
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[test]
fn addresses_and_authorities_are_checked_before_anything_is_called() {
    let ownership = crate::Ownership { cluster: "c".into(), virtual_node: "n".into() };
    let settings = Settings::new(ownership, 1000);
    let connect = |address: &str, authorities: Option<&str>| {
        let connection = Connection { address: address.to_owned(), token: None, authorities: authorities.map(str::to_owned) };
        Client::new(&connection, &settings).err().map(|error| error.source.expect("words").to_string())
    };
    assert_eq!(connect("http://127.0.0.1:4646/", None), None);
    assert!(connect("nomad:4646", None).is_some_and(|words| words.contains("address")));
    assert!(connect("https://nomad:4646", Some("nothing")).is_some_and(|words| words.contains("certificate")));
}
