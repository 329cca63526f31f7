//! The plan as commands for a shell: gcloud's and bq's, in the order in which they must run. Each may be run again.

use super::{AUDITED, Binding, MAPPING, On, Plan, Provider, SERVICES};

pub(super) fn commands(plan: &Plan, jwks: &str) -> String {
    let mut lines = vec![
        "#!/bin/sh".to_owned(),
        "# What Google must be told. Read it, and run it as somebody who may change IAM in these projects.".to_owned(),
        "set -eu".to_owned(),
    ];
    if !plan.universe.is_googles() {
        let domain = plan.universe.domain();
        let set = ["gcloud", "config", "set", "core/universe_domain", domain];
        lines.push(said(&set, &[]));
    }
    lines.extend(plan.notes.iter().map(|note| format!("# NOTE: {note}.")));
    if let Some(provider) = &plan.provider {
        lines.extend(of_provider(provider, jwks));
    }
    for project in &plan.projects {
        lines.push(format!(
            "\n# Project {project}: the APIs, and who may run jobs."
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
        lines.push(format!(
            "# Data access of {} in its audit log: gcloud has no command of its own for that. In the console it is IAM, Audit Logs; or see --terraform.",
            AUDITED.join(", ")
        ));
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

fn of_provider(provider: &Provider, jwks: &str) -> Vec<String> {
    let mapping: Vec<String> = MAPPING
        .iter()
        .map(|(to, from)| format!("{to}={from}"))
        .collect();
    let place = [
        "--project",
        &provider.project,
        "--location",
        &provider.location,
    ];
    let pools = ["gcloud", "iam", "workload-identity-pools"];
    let describe = [&pools[..], &["describe", &provider.pool], &place].concat();
    let create = [&pools[..], &["create", &provider.pool], &place].concat();
    let of_pool = ["--workload-identity-pool", &provider.pool];
    let known = [
        &pools[..],
        &["providers", "describe", &provider.name],
        &place,
        &of_pool,
    ]
    .concat();
    let verb = |verb| {
        [
            &pools[..],
            &["providers", verb, &provider.name],
            &place,
            &of_pool,
        ]
        .concat()
    };
    let options = [
        format!("--issuer-uri={}", provider.issuer),
        format!("--allowed-audiences={}", provider.audience),
        format!("--jwk-json-path={jwks}"),
        format!("--attribute-mapping={}", mapping.join(",")),
        format!("--attribute-condition={}", provider.condition()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    vec![
        "\n# This host as an issuer: its pool, and its provider with the host's public keys (enforcer gcp jwks).".to_owned(),
        format!(
            "{} >/dev/null 2>&1 || {}",
            said(&describe, &[]),
            said(&create, &[])
        ),
        format!(
            "if {} >/dev/null 2>&1; then\n  {}\nelse\n  {}\nfi",
            said(&known, &[]),
            said(&verb("update-oidc"), &options),
            said(&verb("create-oidc"), &options)
        ),
    ]
}

fn binding(binding: &Binding) -> String {
    let Binding { on, role, member } = binding;
    let (member, role) = (member.as_str(), *role);
    let roles = ["--member", member, "--role", role];
    match on {
        On::Project(project) => said(
            &["gcloud", "projects", "add-iam-policy-binding", project],
            &[&roles[..], &["--condition", "None"]].concat(),
        ),
        On::Account(account) => said(
            &[
                "gcloud",
                "iam",
                "service-accounts",
                "add-iam-policy-binding",
                account,
            ],
            &roles,
        ),
        On::Bucket(bucket) => said(
            &[
                "gcloud",
                "storage",
                "buckets",
                "add-iam-policy-binding",
                &format!("gs://{bucket}"),
            ],
            &roles,
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
