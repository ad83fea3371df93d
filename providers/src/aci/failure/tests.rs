use super::*;

fn body(code: &str, message: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({"error": {"code": code, "message": message}})).expect("JSON")
}

fn check(status: u16, code: &str, message: &str, operation: Operation, expected: ErrorKind) {
    let error = ArmError::new(status, &body(code, message));
    assert_eq!(error.kind(operation, None), expected, "{error}");
}

const NOT_AVAILABLE: &str = "The requested resource is not available in the location 'eastus' at this moment. Please retry with a \
    different resource request or in another location. Resource requested: '4' CPU '16' GB memory 'Linux' OS";
const CORES: &str = "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'StandardCores' exceeded in \
    region 'eastus'. Limit: '100', Usage: '12' Requested: '90'.";
const FRAUD: &str = "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'ContainerGroups' exceeded in \
    region 'eastus'. Limit: '0'";

#[test]
fn every_error_of_the_table_has_its_kind() {
    use ErrorKind::*;
    use Operation::*;
    check(409, "ServiceUnavailable", NOT_AVAILABLE, Create, NoCapacity);
    check(409, "ContainerGroupQuotaReached", CORES, Create, QuotaExceeded);
    check(400, "ContainerGroupQuotaReached", "in words that we do not know", Create, QuotaExceeded);
    check(409, "ServiceUnavailable", FRAUD, Create, QuotaExceeded);
    let later = Throttled { retry_after: Some(Duration::from_secs(10)) };
    check(409, "ContainerGroupTransitioning", "still transitioning, please retry later", Delete, later);
    check(429, "TooManyRequests", "", Get, Throttled { retry_after: None });
    check(429, "SubscriptionRequestsThrottled", "", List, Throttled { retry_after: None });
    check(400, "ContainerLimitGreaterThanContainerGroupTotalRequest", "", Create, Invalid);
    for code in [
        "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        "SpotPriorityContainerGroupNotSupportedInSku",
        "SpotPriorityContainerGroupWithGPUResourcesNotSupported",
        "PriorityNotSpecified",
        "InaccessibleImage",
    ] {
        check(400, code, "", Create, Invalid);
    }
    check(409, "RegistryErrorResponse", "", Create, Throttled { retry_after: Some(Duration::from_secs(60)) });
    check(503, "ServerTimeout", "", Create, Unavailable);
    check(504, "InternalServerError", "", Create, Unavailable);
    check(500, "InternalServerError", "", Get, Unavailable);
    check(401, "AADSTS7000222", "the secret is expired", Get, Denied);
    check(403, "AuthorizationFailed", "", Create, Denied);
    check(404, "ResourceNotFound", "", Get, NotFound);
    check(404, "ResourceGroupNotFound", "", Get, Denied);
    check(404, "SubscriptionNotFound", "", List, Denied);
    check(409, "Conflict", "", Create, Conflict);
}

#[test]
fn the_answers_advice_goes_before_ours() {
    let error = ArmError::new(409, &body("ContainerGroupTransitioning", ""));
    let advice = Some(Duration::from_secs(25));
    assert_eq!(error.kind(Operation::Delete, advice), ErrorKind::Throttled { retry_after: advice });
    let error = ArmError::new(429, b"not even JSON");
    assert_eq!(error.kind(Operation::Delete, advice), ErrorKind::Throttled { retry_after: advice });
}

#[test]
fn quota_sentences_are_read() {
    let reached = |name: &str, limit, usage, requested| Some(QuotaReached { name: name.to_owned(), limit, usage, requested });
    assert_eq!(QuotaReached::parse(CORES), reached("StandardCores", 100, 12, 90));
    assert_eq!(QuotaReached::parse(FRAUD), reached("ContainerGroups", 0, 0, 0));
    assert_eq!(QuotaReached::parse(NOT_AVAILABLE), None);
    assert_eq!(QuotaReached::parse("quota 'x' exceeded. Limit: 'many'"), None);
}

#[test]
fn long_sentences_are_cut_between_letters() {
    let error = ArmError::new(400, &body("X", &"ö".repeat(4000)));
    assert_eq!(error.message.len(), MESSAGE_BYTES);
}

#[test]
fn reasons_of_groups_that_never_ran() {
    for (words, cause) in [
        ("Failed to pull image \"nowhere/none:1\": rpc error", StartFailure::Image),
        (NOT_AVAILABLE, StartFailure::NoCapacity),
        (CORES, StartFailure::QuotaExceeded),
        ("Error: failed to start container \"main\": exec: \"nope\": executable file not found", StartFailure::Container),
        ("Failed to mount Azure File Volume.", StartFailure::Configuration),
        ("SubnetNotFound", StartFailure::Configuration),
        ("something new", StartFailure::Unknown),
    ] {
        assert_eq!(start_failure(words), cause, "{words}");
    }
}
