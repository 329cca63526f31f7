//! The plan as Terraform, of the provider `hashicorp/google`.

use std::fmt::Write;

use super::{
    AUDITED, Binding, MAPPING, On, POOL_AUDITED, POOL_SERVICES, Plan, Provider, SERVICES,
    project_of,
};

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
    let pool_project = plan
        .provider
        .as_ref()
        .and_then(|provider| provider.project_id.as_ref());
    if let Some(provider) = &plan.provider {
        of_provider(&mut text, provider, jwks, &services(plan));
        // Where it is one of the others, those have what it needs.
        let is_other = pool_project.is_none_or(|id| !plan.projects.contains(id));
        let services: &[&str] = if is_other {
            &POOL_SERVICES
        } else {
            &["cloudresourcemanager.googleapis.com"]
        };
        of_project(
            &mut text,
            "pool",
            &project_shown(provider),
            services,
            if is_other { &POOL_AUDITED } else { &[] },
        );
    }
    for (at, project) in plan.projects.iter().enumerate() {
        of_project(
            &mut text,
            &at.to_string(),
            &quoted(project),
            &SERVICES,
            &AUDITED,
        );
    }
    let after = needed(plan);
    for (at, binding) in plan.bindings.iter().enumerate() {
        block(&mut text, &of_binding(at, binding, &after));
    }
    text
}

/// The APIs of all projects, as what waits for them names them.
fn services(plan: &Plan) -> Vec<String> {
    let of_pool = plan.provider.iter().map(|_| "pool".to_owned());
    let names = of_pool.chain((0..plan.projects.len()).map(|at| at.to_string()));
    names
        .map(|name| format!("google_project_service.enforcer_{name}"))
        .collect()
}

/// All that must be there before anybody is bound to anything.
fn needed(plan: &Plan) -> String {
    let mut needed = services(plan);
    if plan.provider.is_some() {
        needed.push("google_iam_workload_identity_pool_provider.enforcer".to_owned());
    }
    needed.join(", ")
}

/// The APIs of a project, and what is in its audit log.
fn of_project(text: &mut String, name: &str, project: &str, services: &[&str], audited: &[&str]) {
    block(
        text,
        &format!(
            "resource \"google_project_service\" \"enforcer_{name}\" {{\n  for_each           = toset([{}])\n  project            = {project}\n  service            = each.value\n  disable_on_destroy = false\n}}",
            list(services)
        ),
    );
    if audited.is_empty() {
        return;
    }
    block(
        text,
        &format!(
            "resource \"google_project_iam_audit_config\" \"enforcer_{name}\" {{\n  for_each   = toset([{}])\n  project    = {project}\n  service    = each.value\n  depends_on = [google_project_service.enforcer_{name}]\n  audit_log_config {{\n    log_type = \"ADMIN_READ\"\n  }}\n  audit_log_config {{\n    log_type = \"DATA_READ\"\n  }}\n  audit_log_config {{\n    log_type = \"DATA_WRITE\"\n  }}\n}}",
            list(audited)
        ),
    );
}

/// The id of the pool's project, or the variable that has it.
fn project_shown(provider: &Provider) -> String {
    let id = provider.project_id.as_deref();
    id.map_or_else(|| "var.pool_project".to_owned(), quoted)
}

fn of_provider(text: &mut String, provider: &Provider, jwks: &str, services: &[String]) {
    let Provider {
        project,
        pool,
        name,
        audience,
        issuer,
        ..
    } = provider;
    if provider.project_id.is_none() {
        let what = quoted(&format!(
            "The id of the project whose number is {project}: gcloud projects describe {project}. token.project in the enforcer's configuration names it."
        ));
        block(
            text,
            &format!(
                "variable \"pool_project\" {{\n  type        = string\n  description = {what}\n}}"
            ),
        );
    }
    let project = project_shown(provider);
    block(
        text,
        &format!(
            "resource \"google_iam_workload_identity_pool\" \"enforcer\" {{\n  project                   = {project}\n  workload_identity_pool_id = {}\n  depends_on                = [{}]\n}}",
            quoted(pool),
            services.join(", ")
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
            "resource \"google_iam_workload_identity_pool_provider\" \"enforcer\" {{\n  project                            = {project}\n  workload_identity_pool_id          = google_iam_workload_identity_pool.enforcer.workload_identity_pool_id\n  workload_identity_pool_provider_id = {}\n  attribute_condition                = {}\n  attribute_mapping = {{{mapping}\n  }}\n  oidc {{\n    issuer_uri        = {}\n    allowed_audiences = [{}]\n    jwks_json         = file({})\n  }}\n}}",
            quoted(name),
            quoted(&provider.condition()),
            quoted(issuer),
            quoted(audience),
            quoted(jwks)
        ),
    );
}

fn of_binding(at: usize, binding: &Binding, after: &str) -> String {
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
        On::Account(account) => {
            let project = project_of(account).unwrap_or_else(|| "-".to_owned());
            let whole = quoted(&format!("projects/{project}/serviceAccounts/{account}"));
            (
                "google_service_account_iam_member",
                format!("  service_account_id = {whole}"),
            )
        }
    };
    format!(
        "resource \"{kind}\" \"enforcer_{at}\" {{\n{on}\n  role       = {}\n  member     = {}\n  depends_on = [{after}]\n}}",
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
