//! The plan as commands for a shell: gcloud's and bq's, in the order in which they must run. Each may be run again.

use super::{
    AUDITED, Binding, MAPPING, On, POOL_AUDITED, POOL_SERVICES, Plan, Provider, SERVICES,
    id_by_number, project_of,
};

/// gcloud has no command of its own for audit logs, and needs a Python anyway.
const AUDIT_LOGS: &str = include_str!("audit_logs.py");
/// The id of the pool's project, as the shell has it.
const POOL_PROJECT: &str = "\"$POOL_PROJECT\"";

pub(super) fn commands(plan: &Plan, jwks: &str) -> String {
    let mut lines = vec![
        "#!/bin/sh".to_owned(),
        "# What Google must be told. Read it, and run it as somebody who may change IAM in these projects.".to_owned(),
        "set -eu".to_owned(),
    ];
    if !plan.universe.is_googles() {
        let domain = said(&[plan.universe.domain()], &[]);
        lines.push(format!("export CLOUDSDK_CORE_UNIVERSE_DOMAIN={domain}"));
    }
    lines.extend(plan.notes.iter().map(|note| format!("# NOTE: {note}.")));
    lines.extend(audit_logs());
    if let Some(provider) = &plan.provider {
        lines.extend(of_provider(provider, jwks));
    }
    for project in &plan.projects {
        lines.push(format!(
            "\n# Project {project}: the APIs, who may run jobs, and what is in its audit log."
        ));
        lines.push(said(
            &["gcloud", "services", "enable", "--project", project],
            &SERVICES,
        ));
        let of_it = plan
            .bindings
            .iter()
            .filter(|binding| binding.on == On::Project(project.clone()));
        lines.extend(of_it.map(binding));
        lines.push(said(&["audit_logs", project], &AUDITED));
    }
    lines.push("\n# Datasets, buckets and service accounts.".to_owned());
    let others = plan
        .bindings
        .iter()
        .filter(|binding| !matches!(binding.on, On::Project(_)));
    lines.extend(others.map(binding));
    lines.push(String::new());
    lines.join("\n")
}

/// What turns on data access logs: the project's policy is read, they are added, and it is written where nobody else has written meanwhile (by its etag).
fn audit_logs() -> Vec<String> {
    let python = "PYTHON=$(gcloud info --format='value(basic.python_location)')";
    let work = "WORK=$(mktemp -d)";
    let program = said(&[AUDIT_LOGS], &[]);
    let function = format!(
        "audit_logs() {{\n  project=$1\n  shift\n  gcloud projects get-iam-policy \"$project\" --format=json >\"$WORK/policy.json\"\n  \"$PYTHON\" -c {program} \"$WORK/policy.json\" \"$@\"\n  gcloud projects set-iam-policy \"$project\" \"$WORK/policy.json\" --format=none --quiet\n}}"
    );
    vec![
        "\n# Data access logs: gcloud has no command of its own for them. What is in the policy stays there.".to_owned(),
        python.to_owned(),
        work.to_owned(),
        "trap 'rm -rf \"$WORK\"' EXIT".to_owned(),
        function,
    ]
}

fn of_provider(provider: &Provider, jwks: &str) -> Vec<String> {
    let project = match &provider.project_id {
        Some(id) => said(&[id], &[]),
        None => id_by_number(&provider.project),
    };
    let of_pool = said(&["--workload-identity-pool", &provider.pool], &[]);
    let place = said(&["--location", &provider.location], &[]);
    let place = format!("--project {POOL_PROJECT} {place}");
    let pool = |verb: &str| {
        let name = said(&[&provider.pool], &[]);
        format!("gcloud iam workload-identity-pools {verb} {name} {place}")
    };
    let one = |verb: &str| {
        let name = said(&[&provider.name], &[]);
        format!("gcloud iam workload-identity-pools providers {verb} {name} {place} {of_pool}")
    };
    let options = options(provider, jwks);
    let enable = said(&POOL_SERVICES, &[]);
    let audited = said(&POOL_AUDITED, &[]);
    let mut lines = vec![
        "\n# This host as an issuer: its pool, and its provider with the host's public keys (enforcer gcp jwks).".to_owned(),
    ];
    if provider.project_id.is_none() {
        let note = "# Nothing takes the pool's project by its number, which is all that `token.audience` has: `token.project` in the configuration names it.";
        lines.push(note.to_owned());
    }
    lines.extend([
        format!("POOL_PROJECT={project}"),
        ": \"${POOL_PROJECT:?has no id}\"".to_owned(),
        format!("gcloud services enable --project {POOL_PROJECT} {enable}"),
        format!("audit_logs {POOL_PROJECT} {audited}"),
        format!("{} >/dev/null 2>&1 || {}", pool("describe"), pool("create")),
        format!(
            "if {} >/dev/null 2>&1; then\n  {} {options}\nelse\n  {} {options}\nfi",
            one("describe"),
            one("update-oidc"),
            one("create-oidc"),
        ),
    ]);
    lines
}

/// What a provider is made of.
fn options(provider: &Provider, jwks: &str) -> String {
    let mapping: Vec<String> = MAPPING
        .iter()
        .map(|(to, from)| format!("{to}={from}"))
        .collect();
    let options = [
        format!("--issuer-uri={}", provider.issuer),
        format!("--allowed-audiences={}", provider.audience),
        format!("--jwk-json-path={jwks}"),
        format!("--attribute-mapping={}", mapping.join(",")),
        format!("--attribute-condition={}", provider.condition()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    said(&options, &[])
}

fn binding(binding: &Binding) -> String {
    let Binding { on, role, member } = binding;
    let (member, role) = (member.as_str(), *role);
    let roles = ["--member", member, "--role", role];
    match on {
        On::Project(project) => said(
            &["gcloud", "projects", "add-iam-policy-binding", project],
            &[&roles[..], &["--condition", "None", "--format=none"]].concat(),
        ),
        On::Account(account) => {
            let command = [
                "gcloud",
                "iam",
                "service-accounts",
                "add-iam-policy-binding",
            ];
            let roles = [&roles[..], &["--condition", "None", "--format=none"]].concat();
            match project_of(account) {
                Some(project) => {
                    let of_it = [account.as_str(), "--project", &project];
                    said(&[&command[..], &of_it].concat(), &roles)
                }
                // Its whole name, which needs no project.
                None => {
                    let whole = format!("projects/-/serviceAccounts/{account}");
                    said(&[&command[..], &[whole.as_str()]].concat(), &roles)
                }
            }
        }
        On::Bucket(bucket) => said(
            &[
                "gcloud",
                "storage",
                "buckets",
                "add-iam-policy-binding",
                &format!("gs://{bucket}"),
            ],
            &[&roles[..], &["--condition", "None", "--format=none"]].concat(),
        ),
        On::Dataset { project, dataset } => {
            let grant = format!("GRANT `{role}` ON SCHEMA `{project}.{dataset}` TO \"{member}\"");
            said(
                &["bq", "query", "--project_id", project, "--nouse_legacy_sql"],
                &[&grant],
            )
        }
    }
}

/// A command: its words, each in quotes where the shell would read more into it.
fn said(command: &[&str], more: &[&str]) -> String {
    // What no file can say is in none of them: a zero byte.
    let words = command.iter().chain(more).copied();
    shlex::Quoter::new()
        .allow_nul(true)
        .join(words)
        .unwrap_or_default()
}
