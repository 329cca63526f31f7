//! The plan as Terraform, of the provider `hashicorp/google`.

use std::fmt::Write;

use super::{AUDITED, Binding, MAPPING, On, Plan, Provider, SERVICES};

pub(super) fn resources(plan: &Plan, jwks: &str) -> String {
    let mut text = String::from(
        "# What Google must be told. Made from the enforcer's configuration and policy: make it anew where they change.\n",
    );
    if !plan.universe.is_googles() {
        let domain = quoted(plan.universe.domain());
        block(
            &mut text,
            &format!("provider \"google\" {{\n  universe_domain = {domain}\n}}"),
        );
    }
    for note in &plan.notes {
        block(&mut text, &format!("# NOTE: {note}."));
    }
    if let Some(provider) = &plan.provider {
        of_provider(&mut text, provider, jwks);
    }
    for (at, project) in plan.projects.iter().enumerate() {
        let project = quoted(project);
        block(
            &mut text,
            &format!(
                "resource \"google_project_service\" \"enforcer_{at}\" {{\n  for_each           = toset([{}])\n  project            = {project}\n  service            = each.value\n  disable_on_destroy = false\n}}",
                list(&SERVICES)
            ),
        );
        block(
            &mut text,
            &format!(
                "resource \"google_project_iam_audit_config\" \"enforcer_{at}\" {{\n  for_each = toset([{}])\n  project  = {project}\n  service  = each.value\n  audit_log_config {{\n    log_type = \"ADMIN_READ\"\n  }}\n  audit_log_config {{\n    log_type = \"DATA_READ\"\n  }}\n  audit_log_config {{\n    log_type = \"DATA_WRITE\"\n  }}\n}}",
                list(&AUDITED)
            ),
        );
    }
    for (at, binding) in plan.bindings.iter().enumerate() {
        block(&mut text, &of_binding(at, binding));
    }
    text
}

fn of_provider(text: &mut String, provider: &Provider, jwks: &str) {
    let Provider {
        project,
        pool,
        name,
        audience,
        issuer,
        ..
    } = provider;
    block(
        text,
        &format!(
            "resource \"google_iam_workload_identity_pool\" \"enforcer\" {{\n  project                   = {}\n  workload_identity_pool_id = {}\n}}",
            quoted(project),
            quoted(pool)
        ),
    );
    let mut mapping = String::new();
    for (to, from) in MAPPING {
        // Nothing can fail that writes to a text.
        let _ = write!(mapping, "\n    {} = {}", quoted(to), quoted(from));
    }
    block(
        text,
        &format!(
            "resource \"google_iam_workload_identity_pool_provider\" \"enforcer\" {{\n  project                            = {}\n  workload_identity_pool_id          = google_iam_workload_identity_pool.enforcer.workload_identity_pool_id\n  workload_identity_pool_provider_id = {}\n  attribute_condition                = {}\n  attribute_mapping = {{{mapping}\n  }}\n  oidc {{\n    issuer_uri        = {}\n    allowed_audiences = [{}]\n    jwks_json         = file({})\n  }}\n}}",
            quoted(project),
            quoted(name),
            quoted(&provider.condition()),
            quoted(issuer),
            quoted(audience),
            quoted(jwks)
        ),
    );
}

fn of_binding(at: usize, binding: &Binding) -> String {
    let (kind, on) = match &binding.on {
        On::Project(project) => (
            "google_project_iam_member",
            format!("  project = {}", quoted(project)),
        ),
        On::Dataset { project, dataset } => (
            "google_bigquery_dataset_iam_member",
            format!(
                "  project    = {}\n  dataset_id = {}",
                quoted(project),
                quoted(dataset)
            ),
        ),
        On::Bucket(bucket) => (
            "google_storage_bucket_iam_member",
            format!("  bucket = {}", quoted(bucket)),
        ),
        On::Account(account) => (
            "google_service_account_iam_member",
            format!(
                "  service_account_id = {}",
                quoted(&format!("projects/-/serviceAccounts/{account}"))
            ),
        ),
    };
    format!(
        "resource \"{kind}\" \"enforcer_{at}\" {{\n{on}\n  role   = {}\n  member = {}\n}}",
        quoted(binding.role),
        quoted(&binding.member)
    )
}

fn block(text: &mut String, block: &str) {
    text.push('\n');
    text.push_str(block);
    text.push('\n');
}

fn list(words: &[&str]) -> String {
    let words = words.iter().map(|word| quoted(word));
    words.collect::<Vec<_>>().join(", ")
}

/// A text of HCL's: as JSON's, and what begins a template stands twice.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${").replace("%{", "%%{");
    serde_json::Value::from(text).to_string()
}
