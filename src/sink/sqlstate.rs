//! What each error of Postgres asks for. One table, sorted by what the worker does next.

use postgres::error::{Error, SqlState};

/// What the worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something in the rows themselves is refused: find out which, and refuse that.
    Data,
    /// A row (or the table) is locked by somebody else: find out which, set it aside.
    Locked,
    /// The statement took too long: send less at once.
    Canceled,
    /// Goes away by itself: the same again, for ever, with backoff, on the same connection.
    Again,
    /// The connection is no longer usable: the same again on a new one, for ever, with backoff.
    Reconnect,
    /// Somebody must change schema, rights or settings: the shard is down and says why; tried again from time to time.
    ShardDown,
}

#[cfg(all(test, not(feature = "loom")))]
impl Verdict {
    /// Of a code, for databases that are no Postgres.
    pub(crate) fn of(code: &str) -> Self {
        of_state(&SqlState::from_code(code))
    }
}

/// Sorts an error.
pub fn verdict(error: &Error) -> Verdict {
    match error.code() {
        Some(state) => of_state(state),
        // No SQLSTATE: the connection broke, or a parameter could not be encoded.
        None => Verdict::Reconnect,
    }
}

fn of_state(state: &SqlState) -> Verdict {
    match state.code() {
        // Our own primary key: another connection inserted the row first.
        "23505" | "40001" | "40P01" => Verdict::Again,
        "55P03" => Verdict::Locked,
        "57014" => Verdict::Canceled,
        // Read-only: a standby or a demoted primary; a new connection may find the right one.
        "25006" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => Verdict::Reconnect,
        code => match &code[..2] {
            "22" | "23" | "54" => Verdict::Data,
            "08" | "25" => Verdict::Reconnect,
            // Out of disk, memory, connections; lock tables full; I/O errors.
            "53" | "55" | "58" | "40" => Verdict::Again,
            _ => Verdict::ShardDown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_leads_to_what_helps() {
        for (code, expected) in [
            ("22003", Verdict::Data),
            ("22P05", Verdict::Data),
            ("23514", Verdict::Data),
            ("54000", Verdict::Data),
            ("23505", Verdict::Again),
            ("40P01", Verdict::Again),
            ("53100", Verdict::Again),
            ("55P03", Verdict::Locked),
            ("57014", Verdict::Canceled),
            ("25006", Verdict::Reconnect),
            ("57P01", Verdict::Reconnect),
            ("08006", Verdict::Reconnect),
            ("42P01", Verdict::ShardDown),
            ("42501", Verdict::ShardDown),
            ("28P01", Verdict::ShardDown),
            ("XX000", Verdict::ShardDown),
        ] {
            assert_eq!(of_state(&SqlState::from_code(code)), expected, "{code}");
        }
    }
}
