//! Bearer tokens, compared without telling by the time it takes how much of one was right.

use super::{Request, header};

/// Whether the request has the header `authorization: Bearer …` with one of these tokens.
pub fn has_bearer_token<'t>(request: &Request, tokens: impl IntoIterator<Item = &'t str>) -> bool {
    let given = request.headers().get(header::AUTHORIZATION);
    let Some((scheme, given)) = given.and_then(|value| value.as_bytes().split_at_checked(7)) else {
        return false;
    };
    // The scheme's case does not matter (RFC 9110).
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return false;
    }
    // All are compared, whichever is right.
    let count = tokens
        .into_iter()
        .filter(|token| same(given, token.as_bytes()))
        .count();
    count > 0
}

/// Compares in a time that depends on what was given alone: it doesn't end at the first byte that differs.
fn same(given: &[u8], token: &[u8]) -> bool {
    let mut differing = 0;
    for (at, byte) in given.iter().enumerate() {
        differing |= byte ^ token.get(at).unwrap_or(&!byte);
    }
    given.len() == token.len() && std::hint::black_box(differing) == 0
}
