//! What Google is to be told: the commands run in a shell as they are printed, and Terraform's own grammar takes the resources.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::world::{cloud_sdk, enforcer, venv_python};
use serde_json::Value;

/// Stands for gcloud and bq: writes down each word that it is given, says that nothing is there yet, and knows a project's id and its policy. Where it
/// is told of the real ones it has them try each command first, and writes down what they say.
const STUB: &str = r#"#!/usr/bin/python3
import json, os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
call = [name, *words]
real = os.environ.get("REAL")
if real and os.environ.get("ONLY", "") in " ".join(words):
    tried = subprocess.run([f"{real}/{name}", *words], capture_output=True, text=True)
    with open(os.environ["TRIED"], "a") as tries:
        print(json.dumps([call, tried.returncode, tried.stdout + tried.stderr]), file=tries)
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(call), file=calls)
if "set-iam-policy" in words:
    with open(words[words.index("set-iam-policy") + 2]) as policy, open(os.environ["WRITTEN"], "a") as written:
        print(policy.read(), file=written)
if "get-iam-policy" in words:
    print(os.environ["POLICY"])
elif words[0] == "info":
    print(sys.executable)
elif "--format=value(projectId)" in words:
    print("the-pools-project")
elif "describe" in words:
    sys.exit(int(os.environ.get("THERE", "1")))
"#;

/// A project's policy, with a log that somebody has turned on for all but one.
const PROJECTS_POLICY: &str = r#"{"auditConfigs": [{"service": "sts.googleapis.com", "auditLogConfigs": [{"logType": "DATA_READ", "exemptedMembers": ["user:a@b.c"]}]}], "bindings": [{"role": "roles/owner", "members": ["user:a@b.c"]}], "etag": "BwYAAAAAAAA=", "version": 1}"#;

/// Runs the commands in a shell, with something that stands for gcloud and bq, and gives all that they were given.
fn run(dir: &Path, commands: &str, environment: &[(&str, &str)]) -> Vec<Vec<String>> {
    for name in ["gcloud", "bq"] {
        let path = dir.join(name);
        std::fs::write(&path, STUB).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
    }
    let script = dir.join("setup.sh");
    std::fs::write(&script, commands).expect("written");
    let calls = dir.join("calls");
    let ran = Command::new("/bin/sh")
        .arg(&script)
        .current_dir(dir)
        .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
        .env("CALLS", &calls)
        .env("WRITTEN", dir.join("written"))
        .env("TRIED", dir.join("tried"))
        .env("POLICY", PROJECTS_POLICY)
        .env("CLOUDSDK_CONFIG", dir.join("sdk"))
        .envs(environment.iter().copied())
        .output()
        .expect("runs");
    assert!(ran.status.success(), "{ran:?}");
    let calls = std::fs::read_to_string(calls).expect("calls");
    calls
        .lines()
        .map(|line| serde_json::from_str(line).expect("words"))
        .collect()
}

const POOL: &str =
    "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents";

/// The example's configuration, with an issuer that a shell would read more into, and an agent with a service account.
fn configuration(dir: &Path) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../enforcer/example");
    for name in ["enforcer.toml", "policy.toml"] {
        let text = std::fs::read_to_string(example.join(name)).expect("an example");
        let text = text.replace(
            "issuer = \"https://enforcer.example.com/host-a\"",
            "issuer = \"https://enforcer.example.com/$(touch pwned)'`x`${y}\"",
        );
        std::fs::write(dir.join(name), text).expect("written");
    }
    dir.join("enforcer.toml").to_string_lossy().into_owned()
}

fn setup(config: &str, more: &[&str]) -> String {
    let output = Command::new(enforcer())
        .args(["gcp", "setup", "--config", config])
        .args(more)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a text")
}

#[test]
fn the_commands_say_to_google_what_the_configuration_and_the_policy_need_and_nothing_else_is_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = configuration(dir.path());
    let calls = run(dir.path(), &setup(&config, &[]), &[]);
    assert!(!dir.path().join("pwned").exists(), "nothing else is run");

    let created = calls
        .iter()
        .find(|words| words.contains(&"create-oidc".to_owned()));
    let created = created.expect("a provider");
    for wanted in [
        "host-a",
        "--issuer-uri=https://enforcer.example.com/$(touch pwned)'`x`${y}",
        "--jwk-json-path=/run/enforcer/jwks.json",
        "--attribute-condition=assertion.sub.startsWith('host-a/') && assertion.exp - assertion.iat <= 900",
    ] {
        assert!(
            created.iter().any(|word| word == wanted),
            "{wanted}: {created:?}"
        );
    }
    let said = calls
        .iter()
        .map(|words| words.join(" "))
        .collect::<Vec<_>>();
    for wanted in [
        format!(
            "GRANT `roles/bigquery.dataViewer` ON SCHEMA `demo-project.finance` TO \"principalSet://{POOL}/group/ds:demo-project.finance\""
        ),
        format!(
            "GRANT `roles/bigquery.dataEditor` ON SCHEMA `demo-project.scratch` TO \"principalSet://{POOL}/group/dsw:demo-project.scratch\""
        ),
        format!(
            "projects add-iam-policy-binding demo-project --member principalSet://{POOL}/attribute.host/host-a --role roles/bigquery.jobUser"
        ),
        format!(
            "storage buckets add-iam-policy-binding gs://demo-exports --member principal://{POOL}/subject/host-a/agent/finance-bot --role roles/storage.objectCreator"
        ),
    ] {
        assert!(
            said.iter().any(|call| call.contains(&wanted)),
            "{wanted}: {said:#?}"
        );
    }
    let writes_finance = said
        .iter()
        .any(|call| call.contains("dataEditor` ON SCHEMA `demo-project.finance`"));
    assert!(!writes_finance, "what is only read is bound to be read");
}

#[test]
fn data_access_logs_are_added_to_each_projects_policy_and_nothing_is_taken_from_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let calls = run(dir.path(), &setup(&configuration(dir.path()), &[]), &[]);
    let set = calls.iter().filter(|words| words[2] == "set-iam-policy");
    let projects: Vec<&str> = set.map(|words| words[3].as_str()).collect();
    assert_eq!(projects, ["the-pools-project", "demo-project"]);
    let written = std::fs::read_to_string(dir.path().join("written")).expect("written");
    let policies: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let before: Value = serde_json::from_str(PROJECTS_POLICY).expect("JSON");
    for (policy, services) in policies.iter().zip([
        &["iam", "iamcredentials", "sts"][..],
        &["bigquery", "iam", "iamcredentials", "sts"],
    ]) {
        for kept in ["bindings", "etag", "version"] {
            assert_eq!(policy[kept], before[kept]);
        }
        let configs = policy["auditConfigs"].as_array().expect("a list");
        assert_eq!(configs.len(), services.len(), "{policy}");
        for service in services {
            let name = format!("{service}.googleapis.com");
            let config = configs.iter().find(|config| config["service"] == name);
            let logs = &config.unwrap_or_else(|| panic!("{name}: {policy}"))["auditLogConfigs"];
            for kind in ["ADMIN_READ", "DATA_READ", "DATA_WRITE"] {
                let has = |log: &Value| log["logType"] == kind;
                assert!(logs.as_array().expect("a list").iter().any(has), "{logs}");
            }
        }
        assert!(policy.to_string().contains("exemptedMembers"), "{policy}");
    }
}

#[test]
fn the_pools_project_has_its_id_from_the_configuration_or_by_its_number_and_its_apis_come_first() {
    for (named, id) in [(true, "security-project"), (false, "the-pools-project")] {
        let dir = tempfile::tempdir().expect("a folder");
        let config = configuration(dir.path());
        if named {
            let text = std::fs::read_to_string(&config).expect("reads");
            let own = format!("kind = \"federation\"\nproject = \"{id}\"");
            let text = text.replacen("kind = \"federation\"", &own, 1);
            std::fs::write(&config, text).expect("written");
        }
        let calls = run(dir.path(), &setup(&config, &[]), &[]);
        let asked = calls
            .iter()
            .filter(|words| words[1] == "projects" && words[2] == "describe");
        assert_eq!(asked.count(), usize::from(!named));
        let said: Vec<String> = calls.iter().map(|words| words.join(" ")).collect();
        let place = |text: &str| said.iter().position(|call| call.contains(text));
        let apis = format!(
            "services enable --project {id} cloudresourcemanager.googleapis.com iam.googleapis.com iamcredentials.googleapis.com sts.googleapis.com"
        );
        let pool = format!("workload-identity-pools create agents --project {id}");
        assert!(
            place(&apis).is_some() && place(&apis) < place(&pool),
            "{said:#?}"
        );
        assert!(
            !said
                .iter()
                .any(|call| call.contains("--project 123456789012"))
        );
        let terraform = setup(&config, &["--terraform"]);
        let wanted = if named {
            "\"security-project\""
        } else {
            "var.pool_project"
        };
        assert!(terraform.contains(wanted), "{terraform}");
        assert_eq!(terraform.contains("variable \"pool_project\""), !named);
    }
}

#[test]
fn the_real_cloud_sdk_takes_each_command_as_far_as_it_can_without_an_account() {
    let Some(sdk) = cloud_sdk() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let config = configuration(dir.path());
    let text = std::fs::read_to_string(&config).expect("reads");
    let run_dir = dir.path().to_string_lossy().into_owned();
    let text = text.replacen("/run/enforcer", &run_dir, 1);
    let own = "uid = 2001\nservice_account = \"bot@demo-project.iam.gserviceaccount.com\"";
    let estimator = "[estimator]\nname = \"estimator\"\nservice_account = \"123-compute@developer.gserviceaccount.com\"\n[audit]";
    let text = text.replacen("uid = 2001", own, 1);
    std::fs::write(&config, text.replacen("[audit]", estimator, 1)).expect("written");
    std::fs::write(dir.path().join("jwks.json"), r#"{"keys":[]}"#).expect("written");
    let commands = setup(&config, &[]);
    let bin = sdk.join("bin").to_string_lossy().into_owned();
    let real = [
        ("REAL", bin.as_str()),
        ("CLOUDSDK_CORE_CHECK_GCE_METADATA", "false"),
    ];
    let _ = run(dir.path(), &commands, &real);
    // What is there already is updated instead.
    let there = [&real[..], &[("THERE", "0"), ("ONLY", "update-oidc")]].concat();
    let _ = run(dir.path(), &commands, &there);
    let tried = std::fs::read_to_string(dir.path().join("tried")).expect("tried");
    let tried: Vec<(Vec<String>, i32, String)> = tried
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for verb in [
        "create-oidc",
        "update-oidc",
        "set-iam-policy",
        "enable",
        "query",
    ] {
        let is_tried = tried
            .iter()
            .any(|(words, ..)| words.iter().any(|word| word == verb));
        assert!(is_tried, "{verb}");
    }
    for (words, status, said) in tried {
        if words[1] == "info" {
            assert!(status == 0 && Path::new(said.trim()).is_file(), "{said}");
            continue;
        }
        assert!(
            said.contains("You do not currently have an active account selected"),
            "{words:?}: {said}"
        );
    }
}

/// Prints what Terraform's language makes of a text, by a parser that shares no code with the product.
const PARSED: &str = r#"
import hcl2, json, sys
print(json.dumps(hcl2.loads(sys.stdin.read())))
"#;

#[test]
fn the_resources_are_terraforms_and_say_the_same() {
    use std::io::Write;
    let dir = tempfile::tempdir().expect("a folder");
    let text = setup(&configuration(dir.path()), &["--terraform"]);
    let mut parser = Command::new(venv_python())
        .args(["-c", PARSED])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = parser.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    let output = parser.wait_with_output().expect("ends");
    assert!(output.status.success(), "{output:?}");
    let parsed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let resources = parsed["resource"].as_array().expect("a list");
    let waits = |kind: &str, of: &[&str]| {
        let of_kind = resources.iter().filter_map(|resource| {
            let found = resource.as_object().expect("one").iter();
            found
                .filter(|(name, _)| name.contains(kind))
                .map(|(_, value)| value)
                .next()
        });
        let of_kind: Vec<String> = of_kind.map(Value::to_string).collect();
        assert!(!of_kind.is_empty(), "{kind}");
        for (resource, needed) in of_kind
            .iter()
            .flat_map(|one| of.iter().map(move |of| (one, of)))
        {
            assert!(resource.contains(needed), "{resource} waits for {needed}");
        }
    };
    let apis = [
        "google_project_service.enforcer_pool",
        "google_project_service.enforcer_0",
    ];
    waits("google_iam_workload_identity_pool", &["project"]);
    waits("_iam_member", &apis);
    waits(
        "_iam_member",
        &["google_iam_workload_identity_pool_provider.enforcer"],
    );
    waits(
        "google_project_iam_audit_config",
        &["google_project_service.enforcer_"],
    );
    let said = parsed.to_string();
    for wanted in [
        "google_iam_workload_identity_pool_provider",
        "google_bigquery_dataset_iam_member",
        "google_project_iam_audit_config",
        "google_storage_bucket_iam_member",
        "google_iam_workload_identity_pool_provider.enforcer",
        "cloudresourcemanager.googleapis.com",
        "iamcredentials.googleapis.com",
        &format!("principalSet://{POOL}/group/dsw:demo-project.scratch"),
        // What would begin a template stands twice.
        "'`x`$${y}",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn who_becomes_an_account_by_the_hosts_own_identity_whose_quota_is_used_and_which_cloud_it_is_is_said()
 {
    let dir = tempfile::tempdir().expect("a folder");
    let config = configuration(dir.path());
    let text = std::fs::read_to_string(&config).expect("reads");
    let own = "uid = 2001\ntoken = \"impersonation\"\nservice_account = \"bot@p.iam.gserviceaccount.com\"\nquota_project = \"billing\"";
    let text = text.replacen("uid = 2001", own, 1);
    let there = "[names]\nuniverse_domain = \"googleapis.cloud.example\"";
    std::fs::write(&config, text.replacen("[names]", there, 1)).expect("written");
    for more in [&[][..], &["--terraform"]] {
        let said = setup(&config, more);
        for wanted in [
            "roles/iam.serviceAccountTokenCreator",
            "serviceAccount:THE-HOSTS-OWN-SERVICE-ACCOUNT",
            "roles/serviceusage.serviceUsageConsumer",
            "serviceAccount:bot@p.iam.gserviceaccount.com",
            "billing",
            "googleapis.cloud.example",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert!(!said.contains("workloadIdentityUser"), "{said}");
    }
}
