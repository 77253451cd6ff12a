//! Inputs that nobody meant to send, for the tests of those who read them: what is kept in `tests/corpus`, and small changes of it.
//! The same seed makes the same inputs. Tests only.
//!
//! `MILLPOND_TEST_FUZZ_SECONDS` is how long each of these tests goes on, a fixed number of inputs without it; `MILLPOND_TEST_SEED`
//! what it makes, always the same without it. An input that fails is printed: once its bug is mended it belongs into the corpus.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests say what they saw"
)]

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SEED: u64 = 20_261_130;
/// Longer inputs say nothing new, and take long.
const BYTES_MAX: usize = 1 << 16;

/// Makes inputs without end.
pub struct Fuzz {
    pub rng: SmallRng,
    corpus: Vec<Vec<u8>>,
    tokens: &'static [&'static str],
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect(name))
}

/// The files of a folder of the corpus, by name.
pub fn corpus(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder:?} holds nothing");
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Judges each input of the corpus, then `count` changed ones, or as many as the time allows. `tokens` are what the inputs are
/// made of. How many there were.
pub fn each(
    folder: &str,
    tokens: &'static [&'static str],
    count: u64,
    mut judge: impl FnMut(&mut Fuzz, &[u8]),
) -> u64 {
    let seed = variable("MILLPOND_TEST_SEED").unwrap_or(SEED);
    let time = variable("MILLPOND_TEST_FUZZ_SECONDS").map(Duration::from_secs);
    let kept = corpus(folder);
    let mut fuzz = Fuzz {
        rng: SmallRng::seed_from_u64(seed),
        corpus: kept.iter().map(|(_, input)| input.clone()).collect(),
        tokens,
    };
    let mut judge = |fuzz: &mut Fuzz, input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| judge(fuzz, input))) {
            println!(
                "MILLPOND_TEST_SEED={seed}, {folder}: {}",
                input.escape_ascii()
            );
            resume_unwind(panic);
        }
    };
    for (_, input) in &kept {
        judge(&mut fuzz, input);
    }
    let (begun, mut made) = (Instant::now(), 0);
    while time.map_or(made < count, |time| begun.elapsed() < time) {
        let input = fuzz.next();
        judge(&mut fuzz, &input);
        made += 1;
    }
    println!(
        "{made} inputs made of {} in {:?}",
        kept.len(),
        begun.elapsed()
    );
    made + kept.len() as u64
}

impl Fuzz {
    fn next(&mut self) -> Vec<u8> {
        let mut input = self.corpus.choose(&mut self.rng).unwrap().clone();
        self.change(&mut input);
        while self.rng.random_ratio(2, 5) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    /// One change: of items as often as of bytes, so that much of what comes out still has a meaning.
    fn change(&mut self, input: &mut Vec<u8>) {
        match self.rng.random() {
            true => self.change_item(input),
            false => self.change_bytes(input),
        }
    }

    /// Items lie between commas, braces and ends of lines: one is left out, comes twice, or another one comes.
    fn change_item(&mut self, input: &mut Vec<u8>) {
        let ends: Vec<usize> = (0..input.len())
            .filter(|at| b",{}\n".contains(&input[*at]))
            .collect();
        let (from, to) = match ends.as_slice() {
            [] | [_] => return self.change_bytes(input),
            ends => {
                let which = self.rng.random_range(1..ends.len());
                (ends[which - 1] + 1, ends[which])
            }
        };
        let end = if input[to] == b'\n' { b'\n' } else { b',' };
        match self.rng.random_range(0..6) {
            0 => drop(input.drain(from..=to)),
            1 => {
                let mut again = input[from..to].to_vec();
                again.push(end);
                input.splice(from..from, again);
            }
            2 => {
                let token = self.token();
                input.splice(from..to, token.bytes());
            }
            _ => {
                let mut token = self.token().as_bytes().to_vec();
                token.push(end);
                input.splice(from..from, token);
            }
        }
    }

    /// One small change anywhere.
    fn change_bytes(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=input.len());
        let end = (at + self.rng.random_range(0..24)).min(input.len());
        match self.rng.random_range(0..14) {
            0 if at < input.len() => input[at] ^= 1 << self.rng.random_range(0..8),
            1 => input.insert(at, self.rng.random()),
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            4 => {
                let mut noise = [0; 6];
                self.rng.fill_bytes(&mut noise);
                input.splice(at..end, noise);
            }
            // The beginning of one and the end of the other.
            5 => {
                let other = self.corpus.choose(&mut self.rng).unwrap();
                input.truncate(at);
                input.extend(&other[self.rng.random_range(0..=other.len())..]);
            }
            6 if self.rng.random_ratio(1, 8) => {
                let token = self.token();
                let many = token.repeat(1 << self.rng.random_range(0..12));
                input.splice(at..at, many.bytes());
            }
            7 => self.change_number(input),
            8..=10 => {
                let (start, end) = word(input, at);
                let token = self.token();
                input.splice(start..end, token.bytes());
            }
            _ => {
                let token = self.token();
                input.splice(at..at, token.bytes());
            }
        }
    }

    fn token(&mut self) -> &'static str {
        self.tokens.choose(&mut self.rng).unwrap()
    }

    /// Another number in place of one that stands there.
    fn change_number(&mut self, input: &mut Vec<u8>) {
        let digits: Vec<usize> = (0..input.len())
            .filter(|at| input[*at].is_ascii_digit())
            .collect();
        let Some(at) = digits.choose(&mut self.rng) else {
            return;
        };
        let number = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(-2..3).to_string(),
            1 => i64::MAX.to_string(),
            2 => (i128::from(i64::MAX) + 1).to_string(),
            _ => self.rng.random::<u32>().to_string(),
        };
        input.splice(*at..*at + 1, number.bytes());
    }
}

/// Where the word around a place begins and ends.
fn word(input: &[u8], at: usize) -> (usize, usize) {
    let continues = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = input[..at].iter().rev().take_while(|byte| continues(byte));
    let after = input[at..].iter().take_while(|byte| continues(byte));
    (at - before.count(), at + after.count())
}

#[test]
fn the_same_seed_makes_the_same_inputs_and_they_differ() {
    let made = || {
        let mut all = Vec::new();
        let mut fuzz = Fuzz {
            rng: SmallRng::seed_from_u64(1),
            corpus: vec![b"{\"a\": 1}".to_vec(), b"[12, \"x\"]".to_vec()],
            tokens: &["{", "null"],
        };
        all.resize_with(1000, || fuzz.next());
        all
    };
    let first = made();
    assert_eq!(first, made());
    let different: std::collections::HashSet<_> = first.iter().collect();
    assert!(different.len() > 300, "{}", different.len());
}
