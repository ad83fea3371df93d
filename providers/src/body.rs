//! Bodies of answers, with a bound.

/// Why a body was not read.
type Unread = Box<dyn std::error::Error + Send + Sync>;

/// Reads a body that may have `most` bytes.
///
/// # Errors
/// More than that, or a connection that broke in the middle.
pub(crate) async fn read(mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > most {
            return Err(format!("an answer of more than {most} bytes").into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
