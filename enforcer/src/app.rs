//! Starts everything in order, and stops it in the reverse one. Enforcement comes first and is never taken back: whatever fails after it,
//! the kernel goes on refusing.

mod authority;
mod beside;
mod containers;
mod doctor;
mod ends;
mod identity;
mod kernel;
mod lasting;
mod log;
mod minting;
mod namespaces;
mod places;
mod policy;
mod post;
mod probes;
mod protect;
mod runtimes;
mod services;
mod tokens;
mod uplinks;
mod workloads;

pub(crate) use doctor::without_daemon as doctor_without_daemon;
pub(crate) use tokens::publish as publish_keys;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::AgentName;
use sd_notify::NotifyState;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit;
use crate::client_setup::Files;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, WhenClosed};
use crate::control::peer::Identify;
use crate::control::{self, Control};
use crate::dns::Names;
use crate::dns::heard::Heard;
use crate::dns::marks::Marks;
use crate::dns::questions::Questions;
use crate::dns::responder::Namespace;
use crate::engine::{self, Engine, Parts, Running};
use crate::executables::Executables;
use crate::helper;
use crate::kernel::{Attached, KernelConfig, Ports};
use crate::listeners::{Sockets, Unbound};
use crate::namespaces::Site;
use crate::notify::{self, Notifier};
use crate::origin;
use crate::proxy::apis::Apis;
use crate::proxy::asking::{Asking, Asks};
use crate::proxy::closer::Closer;
use crate::proxy::estimator::Estimator;
use crate::proxy::pages::Pages;
use crate::proxy::quota::{self, Quota, Room};
use crate::proxy::tls::{ProtectedNames, TlsFront};
use crate::proxy::upload::Uploads;
use crate::proxy::way::Rules;
use crate::proxy::{self, Coalesce, Forwarded, Presented, Proxy, Reads};
use crate::random;
use crate::roots;
use crate::subordinate::Subordinate;
use crate::token::{self, Minter};
use crate::upstream::{self, Upstream, UpstreamOptions};
use crate::workload;
use beside::Beside;
use ends::{shut_down, tell_service_manager, wait_for_signal};
use identity::Origins;
use namespaces::hints::Hints;
use places::Places;
use post::Post;
use protect::OldFlows;
use services::Services;

/// How long the daemon waits at its end for threads of its own that look at files.
const STOP: Duration = Duration::from_secs(2);
/// How long the service manager is asked to wait for the start where the log has to be read whole, microseconds.
const READ_LOG_US: u32 = 3_600_000_000;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What could not be started, and what to do about it. Enforcement is as it was, or stricter.
pub fn run(path: &Path) -> Result<()> {
    telemetry();
    ensure!(
        rustix::process::geteuid().is_root(),
        "the daemon must run as root: it attaches kernel programs (sudo enforcer daemon)"
    );
    token::harden().context("protecting the daemon's memory")?;
    let room = quota::allow_files()?;
    let mut config = Config::load(path)?;
    let digest = config.digest();
    let policy = config.load_policy()?;
    if let Some(metadata) = &mut config.metadata {
        // The Cloud SDK ends where a metadata server names no project.
        metadata.project = metadata.project.take().or_else(|| first_project(&policy));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(daemon((config, digest), policy, room));
    // A look at a file that hangs must not keep the next daemon waiting.
    runtime.shutdown_timeout(STOP);
    ended
}

fn telemetry() {
    use tracing_subscriber::EnvFilter;
    // gcp_auth logs the bodies of failed answers at WARN; those may hold credentials.
    let filter = EnvFilter::try_from_env("ENFORCER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.add_directive("gcp_auth=error".parse().unwrap_or_default());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// The project of the first dataset that the policy names.
fn first_project(policy: &Policy) -> Option<String> {
    let mut rules = policy.rules.iter();
    rules.find_map(|rule| {
        let mut patterns = rule.datasets.iter().chain(&rule.writable).chain(&rule.ddl);
        patterns.next().map(|pattern| pattern.project().to_owned())
    })
}

#[expect(
    clippy::too_many_lines,
    reason = "one step for each part, in the order in which they must start"
)]
async fn daemon((config, digest): (Config, String), policy: Policy, room: Room) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    crate::kernel::check_clock(clock.as_ref())?;
    let wanted = crate::runtimes::Wanted::of(&config.agents);
    let told = crate::runtimes::ask_all(&config.runtimes, &wanted).await;
    let places = Places::prepare(&config, &told)?;
    let random = u64::from_ne_bytes(random::bytes().context("making the marks of questions")?);
    let marks = Marks::new(config.mark_mask, config.agents.len(), random);
    let marks = marks.map_err(anyhow::Error::msg)?;
    let ports = Ports {
        proxy: config.proxy_port,
        names: config.names_port,
        metadata: config.metadata.as_ref().map(|metadata| metadata.port),
    };
    // Attached before anything else: from here on nobody but this process reaches what is protected.
    let Attached {
        kernel,
        endpoints: maps,
        namespaces: served_namespaces,
        origins,
        deadlines,
        events,
        uplinks,
    } = crate::kernel::attach(&KernelConfig {
        cgroup_root: places.root.clone(),
        pin_dir: config.pin_dir.clone(),
        daemon_cgroup: places.daemon.clone(),
        ports,
        enforce: config.enforce,
    })?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();

    let files = Files::in_run_dir(&config.run_dir);
    let tls = upstream::verified_tls(roots::system(&files.bundle), config.upstream_ca.as_deref())?;
    let names: Vec<String> = config.protected_names();
    let shared = Arc::new(kernel::Shared::new(
        kernel,
        Arc::clone(&places.workloads),
        workloads::settings(&config, &marks),
        workloads::asking(&places.root, &marks)?,
        (config.agent_uids(), Subordinate::new(&config)),
        config.enforce,
    )?);
    // Before the names are resolved: what is closed to agents is closed as soon as they are known.
    let workloads = workloads::keep(
        Arc::clone(&shared),
        Arc::clone(&clock),
        stop.clone(),
        &tasks,
    )?;
    runtimes::keep(&config, &places.workloads, &clock, &stop, &tasks);
    let old = OldFlows {
        enforce: config.enforce,
        daemon: workload::cgroup_id(&places.daemon)?,
        workloads: Arc::clone(&places.workloads),
    };
    let heard = Arc::new(Heard::new(
        Arc::new(Names::fresh(&config.resolvers, &tls)?),
        Arc::clone(&clock),
    ));
    let lookup = Arc::clone(&heard) as _;
    let endpoints =
        protect::keep(&config, &names, (lookup, old), maps, &clock, &stop, &tasks).await?;
    let uplinks = uplinks::keep(uplinks, stop.clone(), &tasks).await?;
    let looked_at = places.looked_at(&config, uplinks.clone(), endpoints.clone());
    let (asks, asked) = tokio::sync::watch::channel(probes::Asked::NotYet);
    let quota = Arc::new(Quota::new(room));
    let served = served(&config, &names);
    let authority = authority::open(&config, &served, clock.as_ref(), &files)?;
    let upstream = open_upstream(&config, &tls, Some(Arc::new(deadlines)))?;
    let helpers = places.root.join(config.helpers_cgroup());
    if config.has_helpers() {
        helper::prepare(&helpers)
            .with_context(|| format!("making the cgroup {}", helpers.display()))?;
    }
    let minters = Arc::new(tokens::minters(&config, &upstream, &helpers).await?);
    let signs = minters.signs();
    let parts = doctor::Daemons {
        tls: &tls,
        upstream: &upstream,
        minters: &minters,
        clock: &clock,
    };
    let doctor = Arc::new(doctor::of_daemon(&config, digest, parts)?);
    let minting = Arc::new(minting::Minting::new(minters, Arc::clone(&clock)));
    let questions = Arc::new(Questions::default());
    let (told_namespaces, namespaces_told) = watch::channel(namespaces::Told::default());
    let watched = kernel::Watched {
        workloads,
        namespaces: namespaces_told,
        endpoints,
        uplinks,
        probes: probes::keep(looked_at.clone(), stop.clone(), &tasks).await?,
        asked,
        heard,
        questions: Arc::clone(&questions),
        minting: Arc::clone(&minting),
        marks,
        prefixes: config.shared_prefixes_said(),
        quota: Arc::clone(&quota),
    };
    let kernel = kernel::AgentWindows::new(shared, watched);

    // Without a snapshot the log is read whole.
    tell_service_manager(NotifyState::ExtendTimeoutUsec(READ_LOG_US));
    let watched = Arc::new(audit::Watched::default());
    let key = audit::publish::open_key(&config.state_dir, &config.host)?;
    let identify = Arc::new(Identify::new(Arc::clone(&places.workloads), &policy));
    let in_force = policy.clone();
    let Running {
        engine,
        thread,
        runs: left,
        closings,
        ends,
        segments,
        resumed: _,
    } = engine::start(Parts {
        host: config.host.clone(),
        audit_dir: config.audit_dir(),
        segment_bytes: config.audit.segment_bytes,
        keep: config.audit.keep,
        watched: Arc::clone(&watched),
        boot_id: workload::boot_id().context("reading the boot id")?,
        policy,
        kernel: Box::new(kernel),
        clock: Arc::clone(&clock),
    })?;

    log::check_in_background(&config, key.verifier(), &watched)?;
    let index = log::index(&config, &engine, &watched)?;
    let publisher = log::publisher(&config, key, &helpers, &upstream, &clock, watched);
    let publishing = tokio::spawn(publisher.run(ends, segments));
    let agents = Arc::clone(&places.workloads);
    let probes = Arc::clone(&looked_at.probing);
    let refused = Arc::new(Coalesce::default());
    let forwarded = Arc::new(Forwarded::default());
    let presented = Arc::new(Presented::new(Arc::clone(&clock)));
    let minter = minting as Arc<dyn Minter>;
    let estimator = tokens::of_estimator(&config, &minter, &clock);
    let estimator = estimator.map(|tokens| Estimator::new(tokens, Arc::clone(&upstream)));
    let tokens = Arc::new(tokens::ByWindow::new(&config, minter, Arc::clone(&clock)));
    let apis = Arc::new(Apis::of(&names, &config.universe));
    let closer = Closer::new(
        engine.clone(),
        Arc::clone(&upstream),
        Arc::clone(&tokens) as _,
        config.host.clone(),
        Arc::clone(&apis),
    );
    let protected: Arc<ProtectedNames> =
        Arc::new(ProtectedNames::new(names.clone(), config.universe.clone()));
    let numbered = config.agents.iter().map(|agent| agent.name.clone());
    let origins = Origins::new(origins, agents.clone(), numbered.collect(), marks);
    let origins = Arc::new(origins.context("reading the network namespace's cookie")?);
    let parts = beside::Parts {
        callers: Arc::clone(&origins) as _,
        protected: Arc::clone(&protected),
        refused: Arc::clone(&refused),
        clock: Arc::clone(&clock),
        questions,
        windows: engine.windows(),
    };
    let beside = Beside::new(parts, &config, &tls)?;
    let here = Sockets::bind(ports).map_err(not_bound)?;
    let namespace = Namespace {
        netns: here.netns,
        is_strict: false,
        site: Site::default(),
    };
    // What came on this host's own loopback ends as it does, and by no namespace's end.
    let deaths = Arc::new(Notify::new());
    let post = Post::new(stop.clone(), Site::default(), &deaths);
    beside.serve(here.beside, &namespace, &post, &tasks)?;
    tasks.spawn(probes::keep_asking(places.root.clone(), asks, stop.clone()));
    let proxy = Arc::new(Proxy {
        host: config.host.clone(),
        engine: engine.clone(),
        origins,
        processes: origin::Reader::new(identify.workloads()),
        tls: TlsFront::new(
            Arc::clone(&authority),
            Arc::new(served.iter().cloned().collect()),
            Arc::clone(&clock),
        )?,
        protected,
        apis,
        rules: rules(&config),
        connect_timeout: config.connect_timeout,
        upstream,
        tokens,
        clock: Arc::clone(&clock),
        forwarded: Arc::clone(&forwarded),
        presented: Arc::clone(&presented),
        refused: Arc::clone(&refused),
        quota,
        uploads: Uploads::default(),
        reads: Reads::default(),
        verdicts: Arc::default(),
        asking: Asking::new(stop.clone(), tasks.clone()),
        estimator,
        pages: Arc::new(Pages::new()?),
    });
    proxy::take_up(&proxy).await;
    let services = Services { proxy, beside };
    let hints = Hints::default();
    services.serve_proxy(here.proxy, &post, &tasks);
    tasks.spawn(
        namespaces::Keep {
            services,
            ports,
            kernel: served_namespaces,
            workloads: Arc::clone(&places.workloads),
            engine: engine.clone(),
            clock: Arc::clone(&clock),
            hints: hints.clone(),
            here: post,
            deaths,
            told: told_namespaces,
            tasks: tasks.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(closer.run(closings, stop.clone()));
    tasks.spawn(identity::record_events(
        events,
        agents,
        (probes, hints),
        engine.clone(),
        stop.clone(),
    ));
    tasks.spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { refused.run(&engine, stop).await }
    });
    tasks.spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { forwarded.run(&engine, stop).await }
    });
    tasks.spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { presented.run(&engine, stop).await }
    });
    tasks.spawn(containers::record(
        Arc::clone(&places.workloads),
        engine.clone(),
        stop.clone(),
    ));
    if let Some(signs) = signs {
        tasks.spawn(tokens::record_keys(signs, engine.clone(), stop.clone()));
    }
    tasks.spawn(authority::renew(
        authority,
        files.clone(),
        Arc::clone(&clock),
        stop.clone(),
    ));
    tasks.spawn(
        self::policy::Keep {
            engine: engine.clone(),
            identify: Arc::clone(&identify),
            path: config.policy.clone(),
            agents: config.known_agents(),
            in_force,
        }
        .run(stop.clone()),
    );
    let notifier = notify_hooks(&config, helpers, &tls, &engine, &clock, &stop, &tasks)?;
    let runs = Arc::default();
    control::runs::resume(&engine, &runs, left);
    let control = Control {
        engine: engine.clone(),
        runs,
        audit_dir: config.audit_dir(),
        index,
        turns: control::Turns::default(),
        joins: control::Joins::default(),
        on_host: control::OnHost::new(identify.workloads()),
        processes: origin::Reader::new(identify.workloads()),
        identify,
        clock: Arc::clone(&clock),
        client_env: files.env(),
        notifier,
        doctor,
    };
    serve_control(&config, control, &stop, &tasks)?;

    tracing::info!(host = %config.host, socket = %config.socket().display(), "ready");
    tell_service_manager(NotifyState::Ready);
    wait_for_signal().await?;
    shut_down(stop, &tasks, engine, thread).await?;
    // What the log is at its end is signed as well. Witnesses have their own bound.
    publishing.await.context("signing the last checkpoint")
}

/// The names that agents are spoken to under: BigQuery's, and what any of them is allowed besides.
fn served(config: &Config, protected: &[String]) -> Vec<String> {
    let allowed = config.agents.iter().flat_map(|agent| &agent.allow);
    let mut served = Vec::new();
    let mut seen = BTreeSet::new();
    // Many agents are allowed the same.
    for name in protected.iter().chain(allowed) {
        if seen.insert(name) {
            served.push(name.clone());
        }
    }
    served
}

/// What the proxy needs to know of each agent.
fn rules(config: &Config) -> BTreeMap<AgentName, Rules> {
    let each = config.agents.iter().map(|agent| {
        let rules = Rules {
            allow: agent.allow.clone(),
            is_dropped: match agent.closed {
                WhenClosed::Explain => false,
                WhenClosed::Drop => true,
            },
            asks: Some(Asks {
                when: agent.ask,
                ttl: agent.ask_ttl,
            }),
            executables: Executables::new(agent.executables.clone()),
        };
        (agent.name.clone(), rules)
    });
    each.collect()
}

fn open_upstream(
    config: &Config,
    tls: &rustls::ClientConfig,
    deadlines: Option<Arc<dyn upstream::Deadlines>>,
) -> Result<Arc<Upstream>> {
    let resolver = Arc::new(Names::caching(&config.resolvers, tls)?);
    let options = UpstreamOptions {
        tls: tls.clone(),
        connect_timeout: config.connect_timeout,
        resolver,
        deadlines,
    };
    Ok(Arc::new(Upstream::new(options)))
}

fn not_bound(unbound: Unbound) -> anyhow::Error {
    let Unbound {
        address,
        key,
        source,
    } = unbound;
    let why = if source.kind() == ErrorKind::AddrNotAvailable {
        "the loopback does not have this address. Set it up: ip link set lo up".to_owned()
    } else {
        format!("is another process on it? Name a free port below 1024 as `{key}`")
    };
    anyhow::Error::new(source).context(format!("binding {address}: {why}"))
}

/// Starts telling the hooks. Their connections are their own: none of them ever carries a request of a window.
fn notify_hooks(
    config: &Config,
    cgroup: PathBuf,
    tls: &rustls::ClientConfig,
    engine: &Engine,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Arc<Notifier>> {
    let options = notify::Options {
        host: config.host.clone(),
        hooks: config.hooks.clone(),
        state_dir: config.state_dir.clone(),
        audit_dir: config.audit_dir(),
        cgroup,
        boot_id: workload::boot_id().context("reading the boot id")?,
        // Of no window.
        upstream: open_upstream(config, tls, None)?,
        clock: Arc::clone(clock),
    };
    notify::start(options, engine, stop, tasks)
}

fn serve_control(
    config: &Config,
    control: Control,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let path = config.socket();
    let listener = control::bind(&path)
        .with_context(|| format!("binding the control socket {}", path.display()))?;
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(control::serve(listener, Arc::new(control)))
            .await;
    });
    Ok(())
}
