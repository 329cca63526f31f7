//! What a request says of the state in which it is to be carried out (`If-Match` and its like). A condition is sent on or refused: a change whose
//! condition was left out would be made whatever has become of what it changes.

use enforcer_proto::query::Method;
use enforcer_proto::refusal::{Code, Refusal};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The longest condition, bytes; BigQuery's own tags have some thirty.
const CONDITION_BYTES_MAX: usize = 1024;
/// Those that BigQuery knows.
const KNOWN: [&str; 2] = ["if-match", "if-none-match"];
/// All of HTTP's.
const ALL: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];
/// Those by which a client asks for less than the whole of what it asks for: left out, it gets the whole.
const SAVING: [HeaderName; 3] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
];

/// Whether BigQuery tells the states of what this method is about apart, and its answer is passed on as an answer to a condition.
const fn is_of_a_resource(method: Method) -> bool {
    match method {
        Method::DatasetsGet
        | Method::TablesGet
        | Method::TablesPatch
        | Method::TablesUpdate
        | Method::TablesDelete
        | Method::ModelsGet
        | Method::RoutinesGet => true,
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::TablesList
        | Method::TablesInsert
        | Method::TabledataList
        | Method::InsertAll
        | Method::ModelsList
        | Method::RoutinesList
        | Method::JobsList
        | Method::JobsInsert
        | Method::JobsUpload
        | Method::UploadPart
        | Method::JobsQuery
        | Method::JobsGet
        | Method::GetQueryResults
        | Method::JobsCancel
        | Method::JobsDelete
        | Method::StorageCreateReadSession
        | Method::StorageReadRows
        | Method::StorageSplitReadStream => false,
    }
}

/// Judges the conditions of a request.
///
/// # Errors
/// [`Code::FieldUnknown`] for one that would have to be left out, [`Code::RequestMalformed`] for one that is too long or stands twice.
pub(super) fn check(method: Method, verb: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    for name in &ALL {
        let mut given = headers.get_all(name).iter();
        let Some(first) = given.next() else {
            continue;
        };
        if is_of_a_resource(method) && KNOWN.contains(&name.as_str()) {
            if given.next().is_some() || first.len() > CONDITION_BYTES_MAX {
                return Err(Refusal::new(
                    Code::RequestMalformed,
                    format!(
                        "The condition `{name}` stands twice, or is longer than {CONDITION_BYTES_MAX} bytes"
                    ),
                ));
            }
        } else if verb != "GET" || !SAVING.contains(name) {
            return Err(Refusal::new(
                Code::FieldUnknown,
                format!("The condition `{name}` of {method} is not let through"),
            ));
        }
    }
    Ok(())
}

/// The conditions that are sent on, once they have been judged.
pub(super) fn of(
    method: Method,
    headers: &HeaderMap,
) -> impl Iterator<Item = (&'static str, HeaderValue)> {
    let known = KNOWN.into_iter().filter(move |_| is_of_a_resource(method));
    known.filter_map(|name| {
        let value = headers.get(name)?.clone();
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(conditions: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in conditions {
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    fn judged(method: Method, verb: &str, conditions: &[(HeaderName, &str)]) -> Option<Code> {
        let refused = check(method, verb, &said(conditions)).err();
        refused.map(|refusal| refusal.code)
    }

    #[test]
    fn a_condition_of_a_change_is_sent_on_or_the_change_is_refused() {
        let tag = [(header::IF_MATCH, "\"a\"")];
        assert_eq!(judged(Method::TablesPatch, "PATCH", &tag), None);
        let headers = said(&tag);
        let sent: Vec<_> = of(Method::TablesPatch, &headers).collect();
        assert_eq!(sent, [("if-match", HeaderValue::from_static("\"a\""))]);
        let twice = [tag[0].clone(), tag[0].clone()];
        let long = "x".repeat(CONDITION_BYTES_MAX + 1);
        for (method, verb, conditions, code) in [
            (Method::JobsInsert, "POST", &tag[..], Code::FieldUnknown),
            (Method::TablesPatch, "PATCH", &twice, Code::RequestMalformed),
            (
                Method::TablesPatch,
                "PATCH",
                &[(header::IF_MATCH, long.as_str())],
                Code::RequestMalformed,
            ),
            (
                Method::TablesPatch,
                "PATCH",
                &[(header::IF_UNMODIFIED_SINCE, "x")],
                Code::FieldUnknown,
            ),
            (
                Method::JobsInsert,
                "POST",
                &[(header::IF_NONE_MATCH, "*")],
                Code::FieldUnknown,
            ),
        ] {
            assert_eq!(judged(method, verb, conditions), Some(code), "{method}");
        }
    }

    #[test]
    fn a_list_is_given_whole_to_who_asks_for_it_only_where_it_has_changed() {
        let headers = [(header::IF_NONE_MATCH, "\"a\"")];
        assert_eq!(judged(Method::DatasetsList, "GET", &headers), None);
        assert_eq!(of(Method::DatasetsList, &said(&headers)).count(), 0);
        assert_eq!(of(Method::TablesGet, &said(&headers)).count(), 1);
    }
}
