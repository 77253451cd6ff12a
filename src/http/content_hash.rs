//! Names a script or style within a page, so that a Content-Security-Policy allows it and nothing else.

/// `sha256-…`, as such a policy has it.
pub fn content_hash(content: &str) -> String {
    let hash = openssl::sha::sha256(content.as_bytes());
    format!("sha256-{}", openssl::base64::encode_block(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the policy's specification.
    #[test]
    fn the_hash_is_the_one_that_browsers_make() {
        assert_eq!(
            content_hash("alert('Hello, world.');"),
            "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
    }
}
