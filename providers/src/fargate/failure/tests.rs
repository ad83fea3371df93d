use super::*;

#[test]
fn exceptions_say_what_to_do() {
    let cases = [
        ("ThrottlingException", "Rate exceeded", 400, "throttled"),
        ("ClientException", "Too many concurrent attempts to create a new revision of the specified family.", 400, "throttled"),
        ("", "", 429, "throttled"),
        (
            "ClientException",
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
            400,
            "no_capacity",
        ),
        ("ClientException", "You've reached the limit on the number of vCPUs you can run concurrently", 400, "quota_exceeded"),
        (
            "ThrottlingException",
            "You've reached the limit on the number of tasks you can run concurrently",
            400,
            "quota_exceeded",
        ),
        ("AccessDeniedException", "User: x is not authorized to perform: ecs:RunTask", 400, "denied"),
        ("ClientException", "User: x is not authorized to perform: iam:PassRole on resource: y", 400, "denied"),
        (
            "ClientException",
            "ECS was unable to assume the role 'arn:aws:iam::1:role/r' that was provided for this task.",
            400,
            "denied",
        ),
        ("ExpiredTokenException", "The security token included in the request is expired", 400, "denied"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", 400, "denied"),
        ("BlockedException", "Your account is currently blocked", 400, "denied"),
        ("ClusterNotFoundException", "Cluster not found.", 400, "denied"),
        ("InvalidParameterException", "Error retrieving subnet information for [subnet-1]: does not exist", 400, "denied"),
        (
            "InvalidParameterException",
            "The specified capacity provider 'FARGATE_SPOT' was not found. Specify a valid name",
            400,
            "invalid",
        ),
        ("InvalidParameterException", "No Fargate configuration exists for given values.", 400, "invalid"),
        ("PlatformTaskDefinitionIncompatibilityException", "", 400, "invalid"),
        ("UnsupportedFeatureException", "", 400, "invalid"),
        ("ConflictException", "", 409, "conflict"),
        ("ResourceExistsException", "The operation failed because the secret x already exists.", 400, "conflict"),
        ("ResourceNotFoundException", "", 400, "not_found"),
        ("ServerException", "Service Unavailable. Please try again later.", 503, "unavailable"),
        ("", "", 500, "unavailable"),
        ("SomethingNew", "", 400, "invalid"),
        ("SomethingNew", "", 502, "unavailable"),
    ];
    for (code, message, status, label) in cases {
        assert_eq!(exception(code, message, Some(status)).label(), label, "{code} {message}");
    }
}

#[test]
fn refusals_of_run_task_say_what_to_do() {
    let cases = [
        ("Capacity is unavailable at this time. Please try again later or in a different availability zone", "no_capacity"),
        ("You've reached the limit on the number of vCPUs you can run concurrently", "quota_exceeded"),
        ("RESOURCE:ENI", "no_capacity"),
        ("RESOURCE:MEMORY", "no_capacity"),
        ("ATTRIBUTE", "invalid"),
        ("INACTIVE", "denied"),
        ("MISSING", "unavailable"),
        ("something new", "unavailable"),
    ];
    for (reason, label) in cases {
        assert_eq!(refused(reason, "").label(), label, "{reason}");
    }
    assert_eq!(refused("", "Capacity is unavailable at this time").label(), "no_capacity");
}

#[test]
fn tasks_that_never_ran_say_why() {
    let cases = [
        ("CannotPullContainerError: pull image manifest has been retried 5 time(s)", StartFailure::Image),
        ("ResourceInitializationError: unable to pull secrets or registry auth", StartFailure::Configuration),
        ("ResourceInitializationError: failed to validate logger args", StartFailure::Configuration),
        ("CannotStartContainerError: exec: \"nope\": executable file not found in $PATH", StartFailure::Container),
        ("CannotCreateContainerError: x", StartFailure::Container),
        ("ContainerRuntimeTimeoutError: Could not transition to running; timed out after 1m", StartFailure::Container),
        ("Timeout waiting for network interface provisioning to complete.", StartFailure::Configuration),
        ("Capacity is unavailable at this time. Please try again later", StartFailure::NoCapacity),
        ("You've reached the limit on the number of vCPUs you can run concurrently", StartFailure::QuotaExceeded),
        ("Something new", StartFailure::Unknown),
    ];
    for (words, cause) in cases {
        assert_eq!(start_failure(words), cause, "{words}");
    }
}

#[test]
fn containers_have_the_reasons_of_a_kubelet() {
    assert_eq!(container_reason("OutOfMemoryError: Container killed due to memory usage"), Some("OOMKilled"));
    assert_eq!(container_reason("CannotPullContainerError: x"), Some("ImagePullBackOff"));
    assert_eq!(container_reason("CannotCreateContainerError: x"), Some("CreateContainerError"));
    assert_eq!(container_reason(""), None);
}

#[test]
fn long_words_are_cut_at_a_letter() {
    let error = told(ErrorKind::Invalid, Operation::Create, &"ü".repeat(5000));
    let words = error.source.expect("words").to_string();
    assert!(words.len() <= WORDS_BYTES && words.chars().all(|letter| letter == 'ü'));
}
