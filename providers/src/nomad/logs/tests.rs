use super::*;

fn bytes(parts: &[&str]) -> LogStream {
    let parts: Vec<Result<Vec<u8>, Error>> = parts.iter().map(|part| Ok(part.as_bytes().to_vec())).collect();
    stream::iter(parts).boxed()
}

async fn all(mut stream: LogStream) -> String {
    let mut out = Vec::new();
    while let Some(part) = stream.next().await {
        out.extend(part.expect("output"));
    }
    String::from_utf8(out).expect("text")
}

#[tokio::test]
async fn the_last_lines() {
    let parts = ["one\ntw", "o\nthree", "\nfour"];
    for (lines, text) in [(0, ""), (1, "four"), (2, "three\nfour"), (9, "one\ntwo\nthree\nfour")] {
        assert_eq!(last(bytes(&parts), lines).await.expect("output"), text.as_bytes());
        let whole = parts.concat();
        let start = skipped(bytes(&parts), lines).await.expect("output");
        assert_eq!(&whole[usize::try_from(start).expect("small")..], text);
    }
}

#[tokio::test]
async fn no_more_than_the_limit() {
    for (most, text) in [(0, ""), (3, "one"), (5, "onetw"), (99, "onetwo")] {
        assert_eq!(all(limited(bytes(&["one", "two"]), most)).await, text);
    }
}
