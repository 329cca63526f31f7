//! What BigQuery says of a failure. Its words can hold rows (`ERROR((SELECT …))`), and no budget of rows counts them: so they are cut short, and
//! kept back altogether where it is not known which tables the job has read. And they can name what a view is made of: of what BigQuery does not
//! find or does not allow they are told only where the text names all that they name.

mod known;
mod named;
mod shapes;
mod slots;

use std::sync::Arc;

use super::relations::Reading;

use serde_json::{Map, Value, json};

/// The longest sentence of BigQuery's that is passed on, characters.
pub const MESSAGE_CHARS_MAX: usize = 300;
/// The most of several that are passed on; the first says what the job failed of.
const SENTENCES_MAX: usize = 5;
/// The longest of what stands beside a sentence (its reason, its place), characters.
const BESIDE_CHARS_MAX: usize = 100;
/// What is said in place of words that are kept back: of a request that failed, and in a job's description.
const OF_REQUEST: &str = "its words are kept back, since it is not known which tables they come from: a query that is started as a job \
    (jobs.insert) says more once that has ended";
const OF_JOB: &str = "its words are kept back, since it is not known here which tables they come from: ask for the job by its name (jobs.get) once \
    it has ended";
/// The same, where they may name what the window does not cover.
const OF_OUTSIDE: &str =
    "its words are kept back, since they may tell of tables outside the window";
/// What is said where BigQuery says nothing that can be read.
const NO_WORDS: &str = "BigQuery gave no reason that can be read";

/// Reasons whose words come from no row: the job was not begun, or was ended from outside. All other words may be a row's.
const WITHOUT_ROWS: [&str; 10] = [
    "accessDenied",
    "backendError",
    "bytesBilledLimitExceeded",
    "duplicate",
    "internalError",
    "notFound",
    "quotaExceeded",
    "rateLimitExceeded",
    "stopped",
    "timeout",
];

/// Those of them whose words name what is not found or not allowed, which need not be what was asked for.
const NAMING: [&str; 2] = ["accessDenied", "notFound"];

/// What becomes of the words.
#[derive(Debug, Clone)]
pub enum Words {
    /// All that can be named was named by whoever asked, and judged: they are passed on, cut short.
    Cut,
    /// It is known what the query has read: those that hold rows are passed on, and those that name something else are not.
    Compared,
    /// It is not known: only those that come from no row and name nothing are.
    KeptBack,
    /// They are of this text, and what it has read is not known. Of a dry run, which reads no rows, all are passed on that the text allows.
    OfText(Arc<Text>),
}

/// A query's text, as what is said of it is judged by.
#[derive(Debug)]
pub struct Text {
    /// As it was asked.
    pub sql: String,
    /// As it was read.
    pub reading: Reading,
    /// Whether it is only looked at, and reads no rows.
    pub is_dry_run: bool,
}

impl Text {
    fn may_say(&self, reason: Option<&str>) -> bool {
        self.is_dry_run || reason.is_some_and(|reason| WITHOUT_ROWS.contains(&reason))
    }
}

/// What is told of a dry run that failed, which is of one text.
#[must_use]
pub fn of_dry_run(message: &str, sql: &str, reading: &Reading) -> String {
    named::told(message, sql, reading).map_or_else(|| OF_OUTSIDE.to_owned(), |told| cut(&told))
}

/// A sentence of BigQuery's, cut short.
#[must_use]
pub fn cut(text: &str) -> String {
    first(text, MESSAGE_CHARS_MAX)
}

/// An answer that is an error, written anew: code, status and reasons stay, and of its words what may. Where it is none that can be read, only
/// its status stays.
#[must_use]
pub fn of_failure(status: u16, answer: &Value, words: &Words) -> Value {
    let error = &answer["error"];
    let sentences = error["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let sentences = sentences.iter().take(SENTENCES_MAX);
    let sentences: Vec<Value> = sentences
        .map(|said| sentence(said, words, OF_REQUEST))
        .collect();
    // The reason of the whole is that of its first sentence.
    let reason = error["errors"][0]["reason"].as_str();
    let mut whole = Map::new();
    whole.insert("code".to_owned(), json!(status));
    whole.insert(
        "message".to_owned(),
        json!(said(error["message"].as_str(), reason, words, OF_REQUEST)),
    );
    whole.insert("errors".to_owned(), json!(sentences));
    if let Some(name) = error["status"].as_str() {
        whole.insert("status".to_owned(), json!(first(name, BESIDE_CHARS_MAX)));
    }
    json!({"error": whole})
}

/// The words in a job's description: those of its failure, and of what went wrong on the way.
pub fn of_job(job: &mut Value, words: &Words) {
    let Some(status) = job.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(result) = status.get_mut("errorResult") {
        *result = sentence(result, words, OF_JOB);
    }
    if let Some(sentences) = status.get_mut("errors") {
        let all = sentences.as_array().map_or(&[][..], Vec::as_slice);
        let some = all.iter().take(SENTENCES_MAX);
        *sentences = some.map(|said| sentence(said, words, OF_JOB)).collect();
    }
}

/// One sentence with its reason and place, and nothing else that may stand there.
fn sentence(sentence: &Value, words: &Words, instead: &str) -> Value {
    let reason = sentence["reason"].as_str();
    let mut kept = Map::new();
    for name in ["reason", "domain", "location", "locationType"] {
        if let Some(text) = sentence[name].as_str() {
            kept.insert(name.to_owned(), json!(first(text, BESIDE_CHARS_MAX)));
        }
    }
    let message = sentence["message"].as_str();
    if message.is_some() {
        kept.insert(
            "message".to_owned(),
            json!(said(message, reason, words, instead)),
        );
    }
    Value::Object(kept)
}

fn said(message: Option<&str>, reason: Option<&str>, words: &Words, instead: &str) -> String {
    let message = message.unwrap_or(NO_WORDS);
    let is_of = |reasons: &[&str]| reason.is_some_and(|reason| reasons.contains(&reason));
    let told = match words {
        Words::Cut => Some(message.to_owned()),
        Words::Compared => (!is_of(&NAMING)).then(|| message.to_owned()),
        Words::KeptBack => (is_of(&WITHOUT_ROWS) && !is_of(&NAMING)).then(|| message.to_owned()),
        Words::OfText(text) if !text.may_say(reason) => None,
        Words::OfText(text) if text.is_dry_run || is_of(&NAMING) => {
            named::told(message, &text.sql, &text.reading)
        }
        Words::OfText(_) => Some(message.to_owned()),
    };
    if let Some(told) = told {
        return cut(&told);
    }
    let may_be_rows = match words {
        Words::Cut | Words::Compared => false,
        Words::KeptBack => !is_of(&NAMING),
        Words::OfText(text) => !text.may_say(reason),
    };
    let why = if may_be_rows { instead } else { OF_OUTSIDE };
    let reason = first(reason.unwrap_or("no reason given"), BESIDE_CHARS_MAX);
    format!("BigQuery says that it failed ({reason}); {why}")
}

fn first(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> Value {
        let rows = "700,".repeat(3000);
        let said =
            json!({"message": rows, "reason": reason, "debugInfo": rows, "location": "query"});
        let sentences = vec![said; 100];
        json!({"error": {"code": 400, "message": rows, "errors": sentences, "status": "INVALID_ARGUMENT", "details": [{"detail": rows}]}})
    }

    #[test]
    fn the_words_of_a_failure_are_cut_and_nothing_else_is_said_beside_them() {
        let answer = of_failure(400, &failed("invalidQuery"), &Words::Cut);
        let error = &answer["error"];
        assert_eq!(
            error["message"].as_str().map(str::len),
            Some(MESSAGE_CHARS_MAX)
        );
        assert_eq!(
            error["errors"].as_array().map(Vec::len),
            Some(SENTENCES_MAX)
        );
        assert_eq!(error["errors"][0]["reason"], "invalidQuery");
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!(400), &json!("INVALID_ARGUMENT"))
        );
        assert!(answer.to_string().len() < (SENTENCES_MAX + 1) * (MESSAGE_CHARS_MAX + 100));
        assert!(!answer.to_string().contains("detail"), "{answer}");
    }

    #[test]
    fn words_that_may_be_rows_are_kept_back_and_those_of_a_limit_are_not() {
        let answer = of_failure(400, &failed("invalidQuery"), &Words::KeptBack);
        assert!(!answer.to_string().contains("700"), "{answer}");
        let message = answer["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("(invalidQuery)") && message.contains("jobs.insert"));
        let answer = of_failure(403, &failed("quotaExceeded"), &Words::KeptBack);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|said| said.starts_with("700"))
        );
        // What is no error of BigQuery's shape has no words at all.
        for odd in [Value::Null, json!({"error": "700"}), json!({"rows": "700"})] {
            let answer = of_failure(500, &odd, &Words::KeptBack);
            assert!(!answer.to_string().contains("700"), "{answer}");
            assert_eq!(answer["error"]["code"], 500);
        }
    }

    /// What is told of a query's failure, as `reason` says it.
    fn told(said: &str, reason: &str, words: &Words) -> String {
        let answer =
            json!({"error": {"message": said, "errors": [{"message": said, "reason": reason}]}});
        let answer = of_failure(400, &answer, words);
        let message = answer["error"]["message"].as_str();
        message.unwrap_or_default().to_owned()
    }

    #[test]
    fn words_that_name_what_the_text_does_not_are_kept_back_whatever_the_query_has_read() {
        let scope = "p.finance:read".parse().expect("a scope");
        let text = |is_dry_run| {
            let sql = "SELECT amount FROM finance.daily".to_owned();
            let reading = Reading::of(&sql, 6, &scope, "p", None);
            Words::OfText(Arc::new(Text {
                sql,
                reading,
                is_dry_run,
            }))
        };
        let denied = "Access Denied: Table p:hr.salaries: User does not have permission";
        let found = "Not found: Table p:finance.daily was not found in location US";
        for words in [text(true), text(false), Words::Compared, Words::KeptBack] {
            for reason in NAMING {
                let said = told(denied, reason, &words);
                assert!(
                    said.contains(reason) && !said.contains("salaries"),
                    "{said}"
                );
            }
        }
        for words in [text(true), text(false)] {
            assert_eq!(told(found, "notFound", &words), found);
        }
        // Of what moves data all was named by who asked.
        assert_eq!(told(denied, "accessDenied", &Words::Cut), denied);
        // Rows are in the words of what ran, and in none of a dry run's.
        let row = "Division by zero: amount at daily";
        assert_eq!(told(row, "invalidQuery", &Words::Compared), row);
        assert!(told(row, "invalidQuery", &text(false)).contains("jobs.insert"));
        let view = "Invalid view p.finance.v: Name pay not found inside s";
        assert!(!told(view, "invalidQuery", &text(true)).contains("pay"));
    }

    #[test]
    fn the_words_of_a_jobs_own_description_are_cut_or_kept_back_likewise() {
        let rows = "700,".repeat(3000);
        let said = json!({"message": rows, "reason": "invalidQuery"});
        let job = json!({"status": {"state": "DONE", "errorResult": said, "errors": vec![said; 9]}, "id": "j"});
        let mut shown = job.clone();
        of_job(&mut shown, &Words::Cut);
        assert!(shown.to_string().len() < (SENTENCES_MAX + 2) * (MESSAGE_CHARS_MAX + 100));
        assert_eq!(
            (&shown["status"]["state"], &shown["id"]),
            (&json!("DONE"), &json!("j"))
        );
        let mut shown = job;
        of_job(&mut shown, &Words::KeptBack);
        assert!(!shown.to_string().contains("700"), "{shown}");
        let mut running = json!({"status": {"state": "RUNNING"}});
        of_job(&mut running, &Words::KeptBack);
        assert_eq!(running, json!({"status": {"state": "RUNNING"}}));
    }
}
