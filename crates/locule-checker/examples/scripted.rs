//! A program whose checkers do what their file says, however bad that is: what the tests of supervision run.

use std::io::{self, Write as _};

use locule_checker::{Backend, Opening, Reviewer, ServeError, serve};
use locule_component::Verdict;

/// The words of a file, one for each thing to do.
struct Script {
    words: Vec<String>,
    reviews: u32,
}

struct Scripts;

impl Backend for Scripts {
    fn name(&self) -> &'static str {
        "rego"
    }

    fn open(&self, opening: &Opening) -> Result<Box<dyn Reviewer>, String> {
        let text = String::from_utf8(opening.source.clone()).map_err(|error| error.to_string())?;
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match words.first().map(String::as_str) {
            Some("unreadable") => Err("p.rego:1:1: no script at all".to_owned()),
            Some("stillborn") => std::process::exit(7),
            _ => Ok(Box::new(Script { words, reviews: 0 })),
        }
    }
}

impl Reviewer for Script {
    fn about(&self) -> String {
        format!("{} words", self.words.len())
    }

    fn review(&mut self, document: &str) -> Result<Vec<Verdict>, String> {
        self.reviews += 1;
        let finding = |code: &str, message: String| locule_component::Finding {
            code: code.to_owned(),
            message,
            path: "".into(),
            public: false,
        };
        let mut verdicts = Vec::new();
        for word in &self.words {
            match word.as_str() {
                "allow" => verdicts.push(Verdict::allow("")),
                "deny" => verdicts.push(Verdict::deny("", finding("no", "no".to_owned()))),
                "stray" => verdicts.push(Verdict::allow("workflows.#2")),
                "shout" => verdicts.push(Verdict::deny("", finding("NO", "no".to_owned()))),
                "count" => verdicts.push(Verdict::warn("", finding("count", self.reviews.to_string()))),
                "show" => verdicts.push(Verdict::warn("", finding("document", document.to_owned()))),
                "fail" => return Err("it failed\nover two lines".to_owned()),
                "panic" => panic!("at the disco"),
                "crash" => std::process::abort(),
                "exit" => std::process::exit(3),
                "loop" => loop {
                    std::hint::spin_loop();
                },
                "hog" => {
                    let hog: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 64 << 20]).collect();
                    verdicts.push(Verdict::warn("", finding("hog", hog.len().to_string())));
                }
                "huge" => verdicts.push(Verdict::warn("", finding("huge", "x".repeat(2 << 20)))),
                "garbage" => print(b"this is no frame at all"),
                "lie" => print(&[0xff, 0xff, 0xff, 0xff]),
                "wrong" => print(b"\0\0\0\x0e{\"verdicts\":1}"),
                "ready" => print(b"\0\0\0\x18{\"ready\":{\"about\":\"me\"}}"),
                "write" => {
                    let written =
                        std::fs::File::create("hello").and_then(|mut file| file.write_all(b"hello"));
                    verdicts.push(Verdict::warn("", finding("write", format!("{written:?}"))));
                }
                "environment" => {
                    let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                    verdicts.push(Verdict::warn("", finding("environment", names.join(" "))));
                }
                "die-next" if self.reviews > 1 => std::process::exit(4),
                "die-next" => verdicts.push(Verdict::allow("")),
                "leave" => {
                    // Ends as soon as it has answered.
                    let answer = br#"{"verdicts":[]}"#;
                    print(&(answer.len() as u32).to_be_bytes());
                    print(answer);
                    std::process::exit(0);
                }
                other => return Err(format!("{other} is not a thing to do")),
            }
        }
        Ok(verdicts)
    }
}

fn print(bytes: &[u8]) {
    let mut out = io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).ok();
}

fn main() -> Result<(), ServeError> {
    serve(std::env::args_os().skip(1), io::stdin(), io::stdout(), &[&Scripts])
}
