//! What BigQuery says of a failure. Its words can hold rows (`ERROR((SELECT …))`), and no budget of rows counts them: so they are cut short, and
//! kept back altogether where it is not known which tables the job has read.

mod named;

pub use named::told;

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

/// What becomes of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// It is known what the job has read, or it has read nothing: they are passed on, cut short.
    Cut,
    /// It is not known: only those that come from no row are.
    KeptBack,
}

/// A sentence of BigQuery's, cut short.
#[must_use]
pub fn cut(text: &str) -> String {
    first(text, MESSAGE_CHARS_MAX)
}

/// An answer that is an error, written anew: code, status and reasons stay, and of its words what may. Where it is none that can be read, only
/// its status stays.
#[must_use]
pub fn of_failure(status: u16, answer: &Value, words: Words) -> Value {
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
pub fn of_job(job: &mut Value, words: Words) {
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
fn sentence(sentence: &Value, words: Words, instead: &str) -> Value {
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

fn said(message: Option<&str>, reason: Option<&str>, words: Words, instead: &str) -> String {
    let message = message.unwrap_or(NO_WORDS);
    let is_without_rows = reason.is_some_and(|reason| WITHOUT_ROWS.contains(&reason));
    match words {
        Words::Cut => cut(message),
        Words::KeptBack if is_without_rows => cut(message),
        Words::KeptBack => {
            let reason = first(reason.unwrap_or("no reason given"), BESIDE_CHARS_MAX);
            format!("BigQuery says that it failed ({reason}); {instead}")
        }
    }
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
        let answer = of_failure(400, &failed("invalidQuery"), Words::Cut);
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
        let answer = of_failure(400, &failed("invalidQuery"), Words::KeptBack);
        assert!(!answer.to_string().contains("700"), "{answer}");
        let message = answer["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("(invalidQuery)") && message.contains("jobs.insert"));
        let answer = of_failure(403, &failed("quotaExceeded"), Words::KeptBack);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|said| said.starts_with("700"))
        );
        // What is no error of BigQuery's shape has no words at all.
        for odd in [Value::Null, json!({"error": "700"}), json!({"rows": "700"})] {
            let answer = of_failure(500, &odd, Words::KeptBack);
            assert!(!answer.to_string().contains("700"), "{answer}");
            assert_eq!(answer["error"]["code"], 500);
        }
    }

    #[test]
    fn the_words_of_a_jobs_own_description_are_cut_or_kept_back_likewise() {
        let rows = "700,".repeat(3000);
        let said = json!({"message": rows, "reason": "invalidQuery"});
        let job = json!({"status": {"state": "DONE", "errorResult": said, "errors": vec![said; 9]}, "id": "j"});
        let mut shown = job.clone();
        of_job(&mut shown, Words::Cut);
        assert!(shown.to_string().len() < (SENTENCES_MAX + 2) * (MESSAGE_CHARS_MAX + 100));
        assert_eq!(
            (&shown["status"]["state"], &shown["id"]),
            (&json!("DONE"), &json!("j"))
        );
        let mut shown = job;
        of_job(&mut shown, Words::KeptBack);
        assert!(!shown.to_string().contains("700"), "{shown}");
        let mut running = json!({"status": {"state": "RUNNING"}});
        of_job(&mut running, Words::KeptBack);
        assert_eq!(running, json!({"status": {"state": "RUNNING"}}));
    }
}
