//! Starts everything in order, and stops it in the reverse one. Enforcement comes first and is never taken back: whatever fails after it,
//! the kernel goes on refusing.

mod beside;
mod containers;
mod doctor;
mod identity;
mod kernel;
mod log;
mod minting;
mod namespaces;
mod policy;
mod post;
mod probes;
mod runtimes;
mod services;
mod tokens;
mod uplinks;
mod workloads;

pub(crate) use doctor::without_daemon as doctor_without_daemon;
pub(crate) use tokens::publish as publish_keys;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit;
use crate::causes::Causes;
use crate::client_setup::Files;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, AddressClass, Config, WhenClosed};
use crate::control::peer::Identify;
use crate::control::{self, Control};
use crate::dns::endpoints::{self, EndpointSet, Endpoints, Kept};
use crate::dns::heard::Heard;
use crate::dns::marks::Marks;
use crate::dns::protected::{class_of, permitted_subtrees, vips};
use crate::dns::questions::Questions;
use crate::dns::responder::Namespace;
use crate::dns::{Lookup, METADATA_SERVERS, Names, SYNTHETIC};
use crate::engine::{self, Engine, Parts, Running};
use crate::executables::Executables;
use crate::helper;
use crate::kernel::{Attached, KernelConfig, Ports};
use crate::listeners::{Sockets, Unbound};
use crate::loopback;
use crate::namespaces::Site;
use crate::notify::{self, Notifier};
use crate::old_flows::{self, Whose};
use crate::origin;
use crate::prove::canary;
use crate::proxy::apis::Apis;
use crate::proxy::asking::{Asking, Asks};
use crate::proxy::authority::{Authority, AuthorityOptions};
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
use crate::runtimes::Answer;
use crate::subordinate::Subordinate;
use crate::token::{self, Minter};
use crate::upstream::{self, Upstream, UpstreamOptions};
use crate::workload;
use crate::workloads::Workloads;
use beside::Beside;
use identity::Origins;
use namespaces::hints::Hints;
use post::Post;
use services::Services;

/// How long what is under way may take to end when the daemon is stopped.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the daemon waits at its end for threads of its own that look at files.
const STOP: Duration = Duration::from_secs(2);
/// How long the service manager is asked to wait for the start where the log has to be read whole, microseconds.
const READ_LOG_US: u32 = 3_600_000_000;
/// How often the authority is asked whether it must be renewed.
const RENEW: Duration = Duration::from_secs(3600);

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
    let loopback = loopback::addresses().context("looking for the loopback's addresses")?;

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
    runtimes::keep(&config, &places.workloads, &stop, &tasks);
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
    let endpoints = protect(&config, &names, (lookup, old), maps, &clock, &stop, &tasks).await?;
    let uplinks = uplinks::keep(uplinks, stop.clone(), &tasks).await?;
    let looked_at = places.looked_at(&config, uplinks.clone(), endpoints.clone());
    let (asks, asked) = tokio::sync::watch::channel(probes::Asked::NotYet);
    let quota = Arc::new(Quota::new(room));
    let served = served(&config, &names);
    let authority = open_authority(&config, &served, clock.as_ref(), &files)?;
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
        is_without_ipv6: loopback.len() < 2,
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
    tasks.spawn(renew(
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

/// The cgroups: found, made and entered.
struct Places {
    root: PathBuf,
    daemon: PathBuf,
    workloads: Arc<Workloads>,
}

impl Places {
    /// `told`: what container runtimes said.
    fn prepare(config: &Config, told: &[Answer]) -> Result<Self> {
        let mount = workload::find_mount()?;
        let root = config.cgroup_root.clone().unwrap_or_else(|| mount.clone());
        ensure!(
            root.starts_with(&mount),
            "kernel.cgroup_root {} is not below the cgroup v2 mount {}",
            root.display(),
            mount.display()
        );
        let daemon = root.join(&config.daemon_cgroup);
        workload::make(&daemon)
            .with_context(|| format!("making the daemon's cgroup {}", daemon.display()))?;
        let workloads = Workloads::new(mount, root.clone(), daemon.clone(), &config.agents);
        if let Some(problem) = workloads.daemon_problem()? {
            bail!("{problem}: name another as `kernel.daemon_cgroup`");
        }
        // A service manager may have put this process there already.
        let mut others = workload::processes(&daemon)?;
        others.retain(|pid| *pid != std::process::id());
        if !others.is_empty() {
            bail!(
                "processes {others:?} are in the daemon's own cgroup {}, which is its alone: stop the other enforcer, or move them out",
                daemon.display()
            );
        }
        workload::move_into(&daemon, std::process::id())
            .with_context(|| format!("moving into {}", daemon.display()))?;
        workloads.make().context("making the agents' cgroups")?;
        // A cgroup that is named by its path is there from the start, so what is wrong with it is wrong with the configuration.
        if let (true, Some(problem)) = (are_fixed(config), workloads.look().problems.first()) {
            bail!("{problem}");
        }
        // A runtime that does not say what such a cgroup's containers are called keeps nobody out of it.
        workloads.tell(told);
        let looked = workloads.look();
        workloads.set(looked.found, looked.closed);
        Ok(Self {
            root,
            daemon,
            workloads: Arc::new(workloads),
        })
    }

    fn looked_at(
        &self,
        config: &Config,
        uplinks: watch::Receiver<uplinks::Guarded>,
        endpoints: watch::Receiver<Protected>,
    ) -> probes::Host {
        probes::Host {
            root: match config.enforce {
                Enforce::Host => Some(self.root.clone()),
                Enforce::Agents => None,
            },
            daemon: self.daemon.clone(),
            uplinks,
            endpoints,
            turn: Arc::default(),
            workloads: Arc::clone(&self.workloads),
            probing: Arc::default(),
        }
    }
}

/// Whether every workload is a cgroup named by its path.
fn are_fixed(config: &Config) -> bool {
    config.agents.iter().all(|agent| match agent.workload {
        config::Workload::Cgroup(_) => true,
        config::Workload::Unit(_)
        | config::Workload::User(_)
        | config::Workload::Container(_)
        | config::Workload::Pod(_)
        | config::Workload::ContainerName(_)
        | config::Workload::ContainerLabel(_) => false,
    })
}

/// What is protected on every host: what stands for BigQuery when the lock is proven, what agents are told for its names, and the metadata
/// servers of the clouds' hosts. The addresses of Private Google Access are protected beside these.
fn everywhere() -> impl Iterator<Item = (IpNet, AddressClass)> {
    let bigquerys = [
        IpAddr::from(canary::CANARY4),
        canary::CANARY6.into(),
        SYNTHETIC.into(),
    ];
    let bigquerys = bigquerys.map(|ip| (ip, AddressClass::Dedicated));
    let metadata = METADATA_SERVERS.map(|ip| (ip, AddressClass::Metadata));
    bigquerys
        .into_iter()
        .chain(metadata)
        .map(|(ip, class)| (ip.into(), class))
}

/// The addresses of BigQuery that are protected, those that `always` are not among them: of a network its first.
fn known(endpoints: &Endpoints, always: &Endpoints) -> Arc<[IpAddr]> {
    let is_bigquerys = |entry: &(&IpNet, &AddressClass)| !always.contains_key(entry.0);
    let found = endpoints.iter().filter(is_bigquerys);
    let found = found.filter(|(_, class)| **class != AddressClass::Metadata);
    found.map(|(net, _)| net.addr()).collect()
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

/// How often the addresses in the kernel are compared with those that were written.
const ENDPOINTS_LOOK: Duration = Duration::from_secs(3);
/// For how long what was wrong with them is said, so that whoever looks as seldom sees it though it has been put right.
const ENDPOINTS_SAID: Duration = Duration::from_secs(10);

/// What is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Protected {
    /// The addresses of BigQuery.
    known: Arc<[IpAddr]>,
    /// What is wrong with them in the kernel.
    problem: Option<String>,
}

/// Puts the protected addresses into the kernel, and keeps them true. Gives how many there are.
async fn protect(
    config: &Config,
    names: &[String],
    (lookup, old): (Arc<dyn Lookup>, OldFlows),
    mut maps: crate::kernel::EndpointMaps,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Protected>> {
    let classed = names
        .iter()
        .map(|name| (name.clone(), class_of(name, &config.universe)));
    let prefixes = config.prefixes.iter().copied();
    let always: Endpoints = everywhere().chain(vips(&config.prefixes)).collect();
    let mut set = EndpointSet::new(classed, prefixes.chain(always.clone()));
    set.inherit(maps.held()?, clock.now().boot_ns);
    // What does not depend on a look-up holds from now on, however long the resolvers are silent.
    maps.set(&set.current())?;
    let (sender, mut current) = watch::channel(Kept::default());
    tasks.spawn(endpoints::keep(
        set,
        lookup,
        Arc::clone(clock),
        sender,
        stop.clone(),
    ));
    // The first round of look-ups, whatever came of it: static prefixes hold in any case.
    current
        .changed()
        .await
        .context("resolving the protected names")?;
    ensure!(
        !known(&current.borrow().endpoints, &always).is_empty(),
        "no address of BigQuery is known, so nothing would be protected: no resolver answered for {}, and no prefix is named. Check `names.resolvers`, or name Google's ranges in `names.prefixes`",
        names.join(", ")
    );
    let protected_now = current.borrow_and_update().endpoints.clone();
    maps.set(&protected_now)?;
    old.end(protected_now.clone()).await;
    let (sender, protected) = watch::channel(Protected {
        known: known(&current.borrow().endpoints, &always),
        problem: None,
    });
    let stop = stop.clone();
    tasks.spawn(async move {
        let mut look = tokio::time::interval(ENDPOINTS_LOOK);
        let mut before = protected_now;
        let mut said: Option<(String, tokio::time::Instant)> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = current.changed() => if changed.is_err() {
                    return;
                },
                _ = look.tick() => {}
            }
            let Kept {
                endpoints,
                overfull,
            } = current.borrow_and_update().clone();
            let wrong = keep_true(&mut maps, &before, &endpoints);
            if let Some(wrong) = wrong {
                said = Some((wrong, tokio::time::Instant::now()));
            }
            said.take_if(|(_, since)| since.elapsed() >= ENDPOINTS_SAID);
            let wrong = said.as_ref().map(|(wrong, _)| wrong.clone());
            let problem = wrong.or_else(|| too_many(&overfull));
            if endpoints != before {
                let learnt = endpoints
                    .iter()
                    .filter(|(net, _)| !before.contains_key(*net));
                old.end(learnt.map(|(net, class)| (*net, *class)).collect())
                    .await;
                before.clone_from(&endpoints);
            }
            let now = Protected {
                known: known(&endpoints, &always),
                problem,
            };
            sender.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        }
    });
    Ok(protected)
}

/// Ends what is connected to BigQuery past this daemon by those who are enforced on.
struct OldFlows {
    enforce: Enforce,
    /// The id of the daemon's own cgroup.
    daemon: u64,
    workloads: Arc<Workloads>,
}

impl OldFlows {
    /// What is connected to these addresses, which are protected from now on. A kernel that cannot still sends nothing of it.
    async fn end(&self, endpoints: Endpoints) {
        if endpoints.is_empty() {
            return;
        }
        let (enforce, daemon) = (self.enforce, self.daemon);
        let workloads = Arc::clone(&self.workloads);
        let ended = tokio::task::spawn_blocking(move || {
            let whose = match enforce {
                Enforce::Host => Whose::AllBut(daemon),
                Enforce::Agents => Whose::Of(workloads.cgroup_ids()),
            };
            old_flows::end(&endpoints, &whose)
        });
        match ended.await.map_err(std::io::Error::other).flatten() {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(
                ended,
                "connections to BigQuery that were older than enforcement"
            ),
            Err(error) => {
                tracing::warn!(%error, "connections to BigQuery that are older than enforcement cannot be ended; nothing of them leaves this host, and they wait for a timeout")
            }
        }
    }
}

/// What is wrong where names have more addresses than are held.
fn too_many(overfull: &[String]) -> Option<String> {
    (!overfull.is_empty()).then(|| {
        format!(
            "{} answers with so many addresses that some it gave lately are not protected any more: name the prefixes they are in (`names.prefixes`)",
            overfull.join(", ")
        )
    })
}

/// Writes the addresses where they are others than before, or where the kernel holds others than were written; says what went wrong.
fn keep_true(
    maps: &mut crate::kernel::EndpointMaps,
    before: &Endpoints,
    endpoints: &Endpoints,
) -> Option<String> {
    let is_edited = match maps.held() {
        Ok(held) => held != *before,
        Err(error) => return Some(Causes(&error).to_string()),
    };
    if before == endpoints && !is_edited {
        return None;
    }
    match maps.set(endpoints) {
        Ok(()) => is_edited.then(|| {
            "somebody else wrote the protected addresses in the kernel; they are put right again"
                .to_owned()
        }),
        Err(error) => Some(format!(
            "new addresses of BigQuery could not be protected, the known ones still are: {}",
            Causes(&error)
        )),
    }
}

fn open_authority(
    config: &Config,
    names: &[String],
    clock: &dyn Clock,
    files: &Files,
) -> Result<Arc<Authority>> {
    make_dir(&config.state_dir, 0o700)?;
    make_dir(&config.run_dir, 0o755)?;
    let options = AuthorityOptions {
        dir: config.state_dir.clone(),
        host: config.host.clone(),
        permitted: permitted_subtrees(names, &config.universe),
    };
    let authority = Authority::open(options, clock.now())?;
    files.publish(&authority.pem(), &roots::system(&files.bundle))?;
    Ok(Arc::new(authority))
}

/// Makes a folder with these rights; one that exists keeps its own.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    made.with_context(|| format!("making the folder {}", path.display()))
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

async fn renew(
    authority: Arc<Authority>,
    files: Files,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    while stop
        .run_until_cancelled(tokio::time::sleep(RENEW))
        .await
        .is_some()
    {
        let renewed = authority.renew(clock.now()).map_err(anyhow::Error::from);
        let done = renewed.and_then(|renewed| {
            if renewed {
                files.publish(&authority.pem(), &roots::system(&files.bundle))
            } else {
                Ok(())
            }
        });
        if let Err(error) = done {
            tracing::error!(error = %format!("{error:#}"), "the certificate authority could not be renewed");
        }
    }
}

/// Agents that require this service start only then. Where there is no service manager nobody listens.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Lets tasks end, then the engine: its last record is the last thing that happens.
async fn shut_down(
    stop: CancellationToken,
    tasks: &TaskTracker,
    engine: Engine,
    thread: std::thread::JoinHandle<()>,
) -> Result<()> {
    tracing::info!("stopping; the kernel goes on refusing");
    tell_service_manager(NotifyState::Stopping);
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("something is still under way, and is cut");
    }
    engine.stop().await;
    drop(engine);
    let joined = tokio::task::spawn_blocking(move || thread.join())
        .await
        .context("waiting for the engine")?;
    ensure!(
        joined.is_ok(),
        "the engine ended badly; its last words are above"
    );
    Ok(())
}
