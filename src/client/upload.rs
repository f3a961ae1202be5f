//! The image's one journey: up to the chosen node, and back as a PNG.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Url};

use super::error::AttemptError;
use super::exchange;
use super::signer::Signer;
use super::{Job, Work};
use crate::id::NodeId;
use crate::protocol::job::{Label, SealForm, route};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::protocol::user::{BodyHash, Date};

/// Whose image it will be, and who may open it.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// The owner.
    pub signer: Arc<Signer>,
    /// How many views each user has, by name or id. Without any, the owner alone opens it.
    pub to: Vec<(String, u64)>,
    /// When the rights end.
    pub expires: Option<Date>,
    /// Whether views of a lease may be given back.
    pub leases_returnable: bool,
    /// The hash of the image, which is signed for.
    pub body: BodyHash,
}

/// What came back.
pub(super) struct Finished {
    pub image: Bytes,
    /// The node by its own word.
    pub node: Option<NodeId>,
    pub job_time: Duration,
    pub repeated: bool,
}

/// Uploads `job` to the node at `url` and reads the finished image.
pub(super) async fn upload(
    connections: &Client,
    url: &str,
    job: &Job,
    answer_limit: u64,
) -> Result<Finished, AttemptError> {
    let url = job_url(url, job)?;
    let signature = signature(&url, job);
    let mut request = connections.post(url);
    if let Some(signature) = signature {
        request = request.header("authorization", signature);
    }
    let request = request
        .header(route::REQUEST_ID, job.id.to_string())
        .header("content-type", "application/octet-stream")
        .body(job.image.clone());
    let response = exchange::send(request).await?;
    let headers = response.headers();
    let node = header(headers, route::NODE).and_then(|text| text.parse().ok());
    let micros = header(headers, route::JOB_MICROS).and_then(|text| text.parse().ok());
    let repeated = header(headers, route::REPEATED) == Some("true");
    let image = exchange::read_body(response, answer_limit).await?;
    Ok(Finished { image, node, job_time: Duration::from_micros(micros.unwrap_or_default()), repeated })
}

/// What shows that the owner wants this; made for each attempt, as it is believed for two minutes only.
fn signature(url: &Url, job: &Job) -> Option<String> {
    let Work::SealOwned(_, Ownership { signer, body, .. }) = &job.work else { return None };
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Some(signer.authorization("POST", &path, *body, job.id))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn job_url(url: &str, job: &Job) -> Result<Url, AttemptError> {
    let (route, pairs) = match &job.work {
        Work::Seal(form) => (route::SEAL, seal_pairs(*form, &job.name)),
        Work::SealOwned(form, Ownership { to, expires, leases_returnable, .. }) => {
            let mut pairs = seal_pairs(*form, &job.name);
            if !to.is_empty() {
                let rights: Vec<String> = to.iter().map(|(user, views)| format!("{user}={views}")).collect();
                pairs.push(("to", rights.join(",")));
            }
            pairs.extend(expires.map(|date| ("expires", date.0.to_string())));
            pairs.extend(leases_returnable.then(|| ("leases_returnable", "true".to_owned())));
            (route::SEAL, pairs)
        }
        Work::Label(label) => {
            (route::LABEL, vec![("to", label.usernames.join(",")), ("quota", label.quota.to_string())])
        }
    };
    Url::parse_with_params(&format!("{url}{route}"), pairs)
        .map_err(|error| AttemptError::BadAnswer(format!("{url} is no address: {error}")))
}

fn seal_pairs(form: SealForm, name: &str) -> Vec<(&'static str, String)> {
    let form = match form {
        SealForm::Compact => "compact",
        SealForm::Stored => "stored",
    };
    vec![("form", form.to_owned()), ("name", name.to_owned())]
}

/// Names travel with commas between them, so a name with a comma would arrive as two.
pub(super) fn check(work: &Work) -> Result<(), AttemptError> {
    let Work::Label(Label { usernames, .. }) = work else { return Ok(()) };
    let cannot_travel = |name: &&String| {
        name.is_empty() || name.contains(',') || name.trim() != *name || name.contains(char::is_control)
    };
    let wrong = match usernames.iter().find(cannot_travel) {
        Some(name) => {
            format!("\"{}\" cannot be a user name: no commas, control characters or outer spaces", name.escape_debug())
        }
        None if usernames.is_empty() => "a label names at least one user".into(),
        None => return Ok(()),
    };
    Err(AttemptError::Refused(Box::new(Problem::new(ProblemCode::BadRequest, wrong))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RequestId;

    fn job(work: Work) -> Job {
        Job { id: RequestId([2; 16]), image: Bytes::new(), name: "my cat & dog.jpg".into(), work }
    }

    #[test]
    fn what_is_to_be_done_stands_in_the_query() {
        let url = |work| job_url("http://127.0.0.1:8001", &job(work)).unwrap().to_string();
        assert_eq!(
            url(Work::Seal(SealForm::Stored)),
            "http://127.0.0.1:8001/api/v1/images/seal?form=stored&name=my+cat+%26+dog.jpg"
        );
        let secret = crate::identity::UserSecret::from_bytes(&[1; 64]);
        let signer = Arc::new(Signer::new(crate::id::ClusterId([1; 32]), secret.public().user(), secret));
        let to = vec![("bob".to_owned(), 3), ("carol".to_owned(), 1)];
        let expires = Some(Date(1_700_000_000_000));
        let owned = Ownership { signer, to, expires, leases_returnable: true, body: BodyHash::of(b"") };
        assert_eq!(
            url(Work::SealOwned(SealForm::Compact, owned)),
            "http://127.0.0.1:8001/api/v1/images/seal?form=compact&name=my+cat+%26+dog.jpg&to=bob%3D3%2Ccarol%3D1\
             &expires=1700000000000&leases_returnable=true"
        );
        let label = Label { usernames: vec!["alice".into(), "b&b".into()], quota: 5 };
        assert_eq!(url(Work::Label(label)), "http://127.0.0.1:8001/api/v1/images/label?to=alice%2Cb%26b&quota=5");
    }

    #[test]
    fn names_that_would_arrive_as_others_are_refused_before_they_travel() {
        for names in [&["a,b"][..], &[""], &[" a"], &["a\n"], &[]] {
            let usernames = names.iter().map(|&name| name.to_owned()).collect();
            let error = check(&Work::Label(Label { usernames, quota: 1 })).unwrap_err();
            assert!(!error.is_worth_a_retry(), "{names:?}: {error}");
        }
        let usernames = vec!["José García".into()];
        assert!(check(&Work::Label(Label { usernames, quota: 1 })).is_ok());
    }
}
