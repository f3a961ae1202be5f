//! The description of the HTTP interface holds: what running nodes answer is what it says, for every operation that it has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;
mod people;

use std::collections::BTreeSet;
use std::process::Command;

use common::{TestCluster, picture};
use image_cloud::identity::UserSecret;
use image_cloud::protocol::job::route as job;
use image_cloud::protocol::kv::route as kv;
use image_cloud::protocol::membership::route as membership;
use image_cloud::protocol::sharing::route as sharing;
use people::Person;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

const JSON: &str = "application/json";

/// The document as a node serves it, and what of it has been tried.
struct Contract {
    http: reqwest::Client,
    document: Value,
    tried: BTreeSet<(String, String)>,
}

/// An answer that has been found in order.
struct Checked {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Checked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Contract {
    async fn of(node: &str) -> Contract {
        let http = reqwest::Client::builder().redirect(Policy::none()).timeout(common::DEADLINE).build().unwrap();
        let served = http.get(format!("{node}{}", job::OPENAPI)).send().await.unwrap();
        let document = serde_json::from_slice(&served.bytes().await.unwrap()).unwrap();
        Contract { http, document, tried: BTreeSet::new() }
    }

    /// A part of the document as a schema of its own.
    fn validator(&self, schema: &Value) -> jsonschema::Validator {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap()
    }

    /// Sends the request, which is of that path as the document writes it. The answer must have the expected status, and that
    /// status, the form of its body and, of a problem, its code must be documented there.
    async fn check(&mut self, path: &str, request: reqwest::RequestBuilder, status: u16) -> Checked {
        let request = request.build().unwrap();
        let method = request.method().as_str().to_lowercase();
        let what = format!("{method} {} as {path}, {status}", request.url());
        self.tried.insert((path.to_owned(), method.clone()));
        let response = self.http.execute(request).await.unwrap();
        let found = response.status().as_u16();
        let headers = response.headers().clone();
        let form = headers.get(CONTENT_TYPE).map(|form| form.to_str().unwrap().to_owned());
        let is_stream = form.as_deref() == Some("text/event-stream");
        let body = if is_stream { first_event(response).await } else { response.bytes().await.unwrap().to_vec() };
        assert_eq!(found, status, "{what}: {}", String::from_utf8_lossy(&body));

        let described = &self.document["paths"][path][&method]["responses"][status.to_string()];
        assert!(described.is_object(), "{what}: not documented");
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let is_optional = !header["schema"]["type"].is_string() || status >= 400;
            assert!(is_optional || headers.contains_key(name), "{what}: the header {name} is missing");
        }
        let Some(forms) = described["content"].as_object() else {
            assert!(body.is_empty(), "{what}: a body that is not documented");
            return Checked { headers, body };
        };
        let form = form.unwrap_or_else(|| panic!("{what}: no content type"));
        let schema = forms.get(&form).unwrap_or_else(|| panic!("{what}: {form} is not documented"));
        if form.ends_with("json") {
            let value: Value = serde_json::from_slice(&body).unwrap();
            let faults: Vec<String> =
                self.validator(&schema["schema"]).iter_errors(&value).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty(), "{what}: {faults:?} in {value}");
            if form == "application/problem+json" {
                let code = format!("`{}`", value["code"].as_str().unwrap());
                assert!(described["description"].as_str().unwrap().contains(&code), "{what}: {code} is not documented");
                assert_eq!(value["status"], status);
            }
        }
        Checked { headers, body }
    }
}

/// The first change of a stream.
async fn first_event(mut response: reqwest::Response) -> Vec<u8> {
    let mut text = String::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        text += std::str::from_utf8(&piece).unwrap();
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")).filter(|_| text.ends_with("\n\n"))
        {
            return data.as_bytes().to_vec();
        }
    }
    panic!("the stream ended after {text:?}");
}

/// Every operation is called at a running cluster, rightly and wrongly, and what comes back stands in the document.
#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_answer_is_what_the_document_says() {
    let cluster = TestCluster::start(3, "[limits]\noriginal_mib = 1\n").await;
    let leader = cluster.settled().await.node.0;
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let here = cluster.url(leader);
    let mut contract = Contract::of(&here).await;
    let http = contract.http.clone();
    let token = cluster.admin_token();
    let get = |path: &str| http.get(format!("{here}{path}"));
    let post = |path: &str, body: Vec<u8>| http.post(format!("{here}{path}")).header(CONTENT_TYPE, JSON).body(body);
    let key = |method: reqwest::Method, rest: &str| http.request(method, format!("{here}{}/{rest}", kv::KV));
    let (put, delete, add) = (reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::POST);

    // The document itself.
    let document = contract.check(job::OPENAPI, get(job::OPENAPI), 200).await;
    assert_eq!(document.headers["cache-control"], "public, max-age=3600");
    let tag = document.headers[ETAG].to_str().unwrap();
    contract.check(job::OPENAPI, get(job::OPENAPI).header(IF_NONE_MATCH, tag), 304).await;

    // The key-value store.
    contract.check(kv::KEY, key(put.clone(), "a/b?expires_in_ms=600000").body(vec![0xff, 7]), 200).await;
    let value = contract.check(kv::KEY, get(&format!("{}/a/b", kv::KV)), 200).await;
    let listed = contract.check(kv::KV, get(&format!("{}?prefix=a/b", kv::KV)), 200).await.json();
    assert_eq!(value.headers[kv::EXPIRES], listed["items"][0]["expires_unix_ms"].to_string());
    contract.check(kv::KEY, get(&format!("{}/nothing", kv::KV)), 404).await;
    contract.check(kv::KEY, get(&format!("{}/a?stall=true", kv::KV)), 400).await;
    contract.check(kv::KEY, key(put.clone(), "%ff").body("x"), 400).await;
    contract.check(kv::KEY, key(put.clone(), &"k".repeat(5000)).body("x"), 413).await;
    contract.check(kv::KEY, key(put.clone(), "large").body(vec![7; 2 << 20]), 413).await;
    contract.check(kv::KEY, key(put.clone(), "a/b?if_present=false").body("x"), 409).await;
    contract.check(kv::KEY, key(put, "id").header(job::REQUEST_ID, "short").body("x"), 400).await;
    contract.check(kv::KEY, key(add.clone(), "views?add=5"), 200).await;
    contract.check(kv::KEY, key(add.clone(), "views?add=-6&floor=0"), 409).await;
    contract.check(kv::KEY, key(add, "views?add=many"), 400).await;
    contract.check(kv::KEY, key(delete.clone(), "views"), 200).await;
    contract.check(kv::KEY, key(delete, "views"), 200).await;
    let all = json!({"operations": [
        {"op": "require", "key": "c", "present": false}, {"op": "put", "key": "c", "value": "1"},
        {"op": "add", "key": "c", "by": 2, "floor": 0}, {"op": "delete", "key": "d"},
    ]});
    let written = contract.check(kv::KV, post(kv::KV, all.to_string().into()), 200).await.json();
    assert_eq!(written["results"], json!(["as_expected", "put", {"sum": 3}, {"deleted": false}]));
    contract.check(kv::KV, post(kv::KV, b"{\"operations\":[{\"op\":\"burn\"}]}".to_vec()), 400).await;
    contract.check(kv::KV, get(kv::KV), 200).await;
    contract.check(kv::KV, get(&format!("{}?limit=0", kv::KV)), 400).await;
    let elsewhere = http.get(format!("{}{}?prefix=a", cluster.url(follower), kv::KV));
    let redirected = contract.check(kv::KV, elsewhere, 307).await;
    assert!(redirected.headers["location"].to_str().unwrap().starts_with(&here), "{:?}", redirected.headers);
    let changed = contract.check(kv::WATCH, get(&format!("{}?after=0", kv::WATCH)), 200).await.json();
    let schema = json!({"$ref": "#/components/schemas/Changed"});
    assert!(contract.validator(&schema).is_valid(&changed) && changed["key"] == "a/b", "{changed}");
    contract.check(kv::WATCH, get(&format!("{}?after=x", kv::WATCH)), 400).await;

    // Images.
    let request = json!({"request_id": "ab".repeat(16), "operation": "seal", "size_bytes": 5});
    let announcement = |count: usize| json!({"requests": vec![request.clone(); count]}).to_string().into_bytes();
    contract.check(job::ANNOUNCEMENTS, post(job::ANNOUNCEMENTS, announcement(2)), 200).await;
    contract.check(job::ANNOUNCEMENTS, post(job::ANNOUNCEMENTS, announcement(300)), 413).await;
    contract.check(job::ANNOUNCEMENTS, post(job::ANNOUNCEMENTS, b"[]".to_vec()), 400).await;
    contract.check(job::SEAL, post(job::SEAL, picture(1)), 200).await;
    contract.check(job::SEAL, post(job::SEAL, b"no image".to_vec()), 422).await;
    contract.check(job::SEAL, post(job::SEAL, vec![0; (1 << 20) + 1]), 413).await;
    let label = format!("{}?to=alice,bob&quota=5", job::LABEL);
    contract.check(job::LABEL, post(&label, picture(1)), 200).await;
    contract.check(job::LABEL, post(job::LABEL, picture(1)), 400).await;

    users_and_rights(&cluster, &here, &mut contract).await;

    // Cluster and node.
    for path in
        [kv::HASH, membership::MEMBERS, job::ELECTIONS, job::STATUS, job::EVENTS, job::FAULTS, job::LIVEZ, job::READYZ]
    {
        contract.check(path, get(path), 200).await;
        contract.check(path, get(path).header("host", "evil.example"), 403).await;
    }
    contract.check(job::EVENTS, get(&format!("{}?since=x", job::EVENTS)), 400).await;
    let fault = json!([{"peer": follower, "delay_ms": 1}]).to_string().into_bytes();
    let unknown = json!([{"peer": 9}]).to_string().into_bytes();
    contract.check(job::FAULTS, post(job::FAULTS, fault.clone()), 401).await;
    contract.check(job::FAULTS, post(job::FAULTS, fault.clone()).bearer_auth("wrong"), 403).await;
    contract.check(job::FAULTS, post(job::FAULTS, fault).bearer_auth(token.secret()), 200).await;
    contract.check(job::FAULTS, post(job::FAULTS, unknown).bearer_auth(token.secret()), 400).await;
    let change = |body: Value| post(membership::MEMBERS, body.to_string().into_bytes());
    let stranger = json!({"change": "remove", "node": 9});
    contract.check(membership::MEMBERS, change(stranger.clone()), 401).await;
    contract.check(membership::MEMBERS, change(stranger).bearer_auth(token.secret()), 404).await;
    contract.check(membership::MEMBERS, change(json!({"change": "burn"})).bearer_auth(token.secret()), 400).await;
    let removal = json!({"change": "remove", "node": follower});
    contract.check(membership::MEMBERS, change(removal).bearer_auth(token.secret()), 200).await;
    contract.check(job::STATUS, get(job::STATUS), 200).await;
    contract.check(job::FAIL, post(job::FAIL, b"{\"duration_ms\":0}".to_vec()).bearer_auth(token.secret()), 400).await;
    contract
        .check(job::FAIL, post(job::FAIL, b"{\"duration_ms\":200}".to_vec()).bearer_auth(token.secret()), 202)
        .await;

    let documented = contract.document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())).collect::<Vec<_>>()
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), contract.tried, "an operation that nobody tried");
}

/// The routes that users sign for, and those that make users.
async fn users_and_rights(cluster: &TestCluster, here: &str, contract: &mut Contract) {
    let (http, token) = (contract.http.clone(), cluster.admin_token());
    let alice = Person::register(cluster, "alice", 1).await;
    let bob = Person::register(cluster, "bob", 2).await;
    let mallory = Person::register(cluster, "mallory", 3).await;
    let plain = |method: &str, path: &str| http.request(method.parse().unwrap(), format!("{here}{path}"));
    let signed = |person: &Person, method: &'static str, path: &str, body: Vec<u8>| {
        let asked = person.ask(method, path, body, people::fresh_id());
        let request = plain(method, path).header("authorization", asked.authorization.to_string());
        request.header(job::REQUEST_ID, asked.id.to_string()).body(asked.body)
    };
    let json = |value: Value| value.to_string().into_bytes();

    contract.check(sharing::IDENTITY, plain("GET", sharing::IDENTITY), 200).await;
    contract.check(sharing::USERS, plain("GET", sharing::USERS), 200).await;
    contract.check(sharing::USERS, plain("GET", &format!("{}?name=bob", sharing::USERS)), 200).await;
    contract.check(sharing::USERS, plain("GET", &format!("{}?name=bob&after=x", sharing::USERS)), 400).await;
    let registration = |name: &str| json!({"name": name, "keys": alice.secret.public()});
    contract.check(sharing::USERS, signed(&alice, "POST", sharing::USERS, json(registration("alice"))), 200).await;
    contract.check(sharing::USERS, signed(&alice, "POST", sharing::USERS, json(registration("bob"))), 409).await;
    contract.check(sharing::USERS, signed(&alice, "POST", sharing::USERS, json(registration("a b"))), 400).await;
    contract.check(sharing::USERS, signed(&bob, "POST", sharing::USERS, json(registration("alice"))), 401).await;
    contract.check(sharing::USERS, plain("POST", sharing::USERS), 401).await;
    let invite = || plain("POST", sharing::INVITATIONS).header(CONTENT_TYPE, JSON).body(r#"{"for_ms":1000}"#);
    contract.check(sharing::INVITATIONS, invite().bearer_auth(token.secret()), 200).await;
    contract.check(sharing::INVITATIONS, invite(), 401).await;
    contract.check(sharing::INVITATIONS, invite().body(r#"{"for_ms":0}"#).bearer_auth(token.secret()), 400).await;

    let sealed = alice.seal(here, &picture(1), "&to=bob%3D1").await.unwrap();
    let header = people::header_of(&sealed);
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
    let view = |header: &[u8]| json(json!({"header": base64(header), "action": "view"}));
    contract.check(sharing::RIGHTS, signed(&bob, "POST", sharing::RIGHTS, view(&header)), 200).await;
    contract.check(sharing::RIGHTS, signed(&bob, "POST", sharing::RIGHTS, view(&header)), 403).await;
    contract.check(sharing::RIGHTS, plain("POST", sharing::RIGHTS).body(view(&header)), 401).await;
    contract.check(sharing::RIGHTS, signed(&bob, "POST", sharing::RIGHTS, view(&header[..200])), 422).await;
    contract.check(sharing::RIGHTS, signed(&bob, "POST", sharing::RIGHTS, b"{}".to_vec()), 400).await;
    let revoke = json!({"header": base64(&header), "action": {"revoke": {"user": mallory.user}}});
    contract.check(sharing::RIGHTS, signed(&alice, "POST", sharing::RIGHTS, json(revoke)), 404).await;
    let look = || json(json!({"header": base64(&header)}));
    contract.check(sharing::LOOK, signed(&alice, "POST", sharing::LOOK, look()), 200).await;
    contract.check(sharing::LOOK, signed(&bob, "POST", sharing::LOOK, look()), 200).await;
    contract.check(sharing::LOOK, signed(&mallory, "POST", sharing::LOOK, look()), 403).await;
    let images = contract.check(sharing::IMAGES, signed(&alice, "GET", sharing::IMAGES, Vec::new()), 200).await.json();
    assert_eq!(images["images"].as_array().unwrap().len(), 1, "{images}");
    contract.check(sharing::IMAGES, plain("GET", sharing::IMAGES), 401).await;
    let local = json!({"payload_bytes": 5, "media_type": "image/png", "name": "a", "rights": {}, "data_key": "AAAA"});
    contract.check(sharing::HEADER, signed(&alice, "POST", sharing::HEADER, json(local)), 400).await;

    let rotation = json(json!({"to": UserSecret::from_bytes(&[50; 64]).public()}));
    contract.check(sharing::KEYS, signed(&bob, "POST", sharing::KEYS, rotation.clone()), 200).await;
    contract.check(sharing::KEYS, signed(&bob, "POST", sharing::KEYS, rotation), 401).await;
    let expel = |user: &str| plain("DELETE", &sharing::USER.replace("{user}", user)).bearer_auth(token.secret());
    contract.check(sharing::USER, expel(&mallory.user.to_string()), 200).await;
    contract.check(sharing::USER, expel(&"0".repeat(64)), 404).await;
    contract.check(sharing::USER, expel("mallory"), 400).await;
}

/// What no route takes is refused as a problem too: no such path, no such method, a body too long, a broken one.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_takes_is_a_problem_with_a_code() {
    let cluster = TestCluster::start(1, "[limits]\nwaiting_writes = 4\n").await;
    let here = cluster.url(1);
    let contract = Contract::of(&here).await;
    let http = contract.http.clone();
    let to = |method: &str, path: &str| http.request(method.parse().unwrap(), format!("{here}{path}"));
    let large = vec![b' '; 3 << 20];
    let cases = [
        (to("GET", "/"), 404, "not_found"),
        (to("GET", "/api/v1/nothing"), 404, "not_found"),
        (to("GET", "/api/v1/kv/%zz%ff"), 400, "bad_request"),
        (to("PATCH", "/api/v1/kv/a"), 405, "method_not_allowed"),
        (to("DELETE", "/api/v1/openapi.json"), 405, "method_not_allowed"),
        (to("GET", "/api/v1/node/fail"), 405, "method_not_allowed"),
        (to("PUT", "/api/v1/kv/a").body(large.clone()), 413, "too_large"),
        (to("POST", "/api/v1/kv").header(CONTENT_TYPE, JSON).body(large), 413, "too_large"),
        (to("POST", "/api/v1/kv").header(CONTENT_TYPE, JSON).body("{\"operations\":"), 400, "bad_request"),
        (to("POST", "/api/v1/kv").body("{}"), 400, "bad_request"),
        (to("GET", "/api/v1/events?since=-1"), 400, "bad_request"),
    ];
    let problem = contract.validator(&json!({"$ref": "#/components/schemas/Problem"}));
    for (request, status, code) in cases {
        let request = request.build().unwrap();
        let what = format!("{} {}", request.method(), request.url());
        let response = http.execute(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{what}");
        assert!(!response.headers().contains_key(RETRY_AFTER), "{what}");
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert!(problem.is_valid(&body) && body["code"] == code, "{what}: {body}");
    }
}

/// Without a running node the program prints what a node serves.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_prints_what_nodes_serve() {
    let cluster = TestCluster::start(1, "").await;
    let served = reqwest::get(cluster.url(1) + job::OPENAPI).await.unwrap().text().await.unwrap();
    let printed = Command::new(env!("CARGO_BIN_EXE_cloud-node")).arg("openapi").output().unwrap();
    assert!(printed.status.success());
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), served + "\n");
}
