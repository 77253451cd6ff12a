//! Where something is in a message: the Kafka key or the value, and the names that lead there.

/// The part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The Kafka key.
    Key,
    /// The value.
    Value,
}

/// The way to a value: `@key`, `@key.id`, `owner.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub place: Place,
    /// The names within; none for the whole text of the key.
    pub names: Vec<String>,
}

impl Path {
    /// Reads a path; `None` for a text that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, rest) = match text.strip_prefix("@key") {
            Some("") => {
                return Some(Self {
                    place: Place::Key,
                    names: Vec::new(),
                });
            }
            Some(rest) => (Place::Key, rest.strip_prefix('.')?),
            None => (Place::Value, text),
        };
        let names: Vec<String> = rest.split('.').map(str::to_owned).collect();
        let is_path = names.iter().all(|name| !name.is_empty()) && !rest.starts_with('@');
        is_path.then_some(Self { place, names })
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.names.join(".");
        match self.place {
            Place::Key if names.is_empty() => f.write_str("@key"),
            Place::Key => write!(f, "@key.{names}"),
            Place::Value => f.write_str(&names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_as_they_are_written() {
        for text in [
            "@key",
            "@key.id",
            "@key.payload.id",
            "a",
            "after.owner.name",
        ] {
            let path = Path::parse(text).map(|path| path.to_string());
            assert_eq!(path.as_deref(), Some(text));
        }
        for text in ["", ".", "a.", ".a", "a..b", "@key.", "@keys", "@value.a"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }
}
