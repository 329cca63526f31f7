//! The addresses of BigQuery, in the kernel: put there before anything is served, and kept true as look-ups go on. What was connected to one
//! before it was known ends as it becomes known.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{AddressClass, Config};
use crate::dns::endpoints::{self, EndpointSet, Endpoints, Kept};
use crate::dns::protected::{class_of, vips};
use crate::dns::{Lookup, METADATA_SERVERS, SYNTHETIC};
use crate::kernel::EndpointMaps;
use crate::old_flows::{self, Whose};
use crate::prove::canary;
use crate::workloads::Workloads;

/// How often the addresses in the kernel are compared with those that were written.
const ENDPOINTS_LOOK: Duration = Duration::from_secs(3);
/// For how long what was wrong with them is said, so that whoever looks as seldom sees it though it has been put right.
const ENDPOINTS_SAID: Duration = Duration::from_secs(10);

/// What is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protected {
    /// The addresses of BigQuery.
    pub(super) known: Arc<[IpAddr]>,
    /// What is wrong with them in the kernel.
    pub(super) problem: Option<String>,
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

/// Puts the protected addresses into the kernel, and keeps them true. Gives what they are.
///
/// # Errors
/// When none is known, so that nothing would be protected, or the kernel takes none.
pub(super) async fn keep(
    config: &Config,
    names: &[String],
    (lookup, old): (Arc<dyn Lookup>, OldFlows),
    mut maps: EndpointMaps,
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
    let now = current.borrow_and_update().endpoints.clone();
    maps.set(&now)?;
    old.end(now.clone()).await;
    let (sender, protected) = watch::channel(Protected {
        known: known(&now, &always),
        problem: None,
    });
    let held = Held {
        maps,
        always,
        old,
        before: now,
        said: None,
    };
    tasks.spawn(held.run(current, sender, stop.clone()));
    Ok(protected)
}

/// What the kernel was given.
struct Held {
    maps: EndpointMaps,
    /// What is protected on every host.
    always: Endpoints,
    old: OldFlows,
    before: Endpoints,
    /// What was wrong last, and since when.
    said: Option<(String, Instant)>,
}

impl Held {
    /// Looks as often as that is needed, and tells what is protected.
    async fn run(
        mut self,
        mut current: watch::Receiver<Kept>,
        told: watch::Sender<Protected>,
        stop: CancellationToken,
    ) {
        let mut look = tokio::time::interval(ENDPOINTS_LOOK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = current.changed() => if changed.is_err() {
                    return;
                },
                _ = look.tick() => {}
            }
            let kept = current.borrow_and_update().clone();
            let now = self.keep_true(kept).await;
            told.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        }
    }

    async fn keep_true(&mut self, kept: Kept) -> Protected {
        let Kept {
            endpoints,
            overfull,
        } = kept;
        if let Some(wrong) = keep_true(&mut self.maps, &self.before, &endpoints) {
            self.said = Some((wrong, Instant::now()));
        }
        self.said
            .take_if(|(_, since)| since.elapsed() >= ENDPOINTS_SAID);
        let wrong = self.said.as_ref().map(|(wrong, _)| wrong.clone());
        let protected = Protected {
            known: known(&endpoints, &self.always),
            problem: wrong.or_else(|| too_many(&overfull)),
        };
        if endpoints != self.before {
            let learnt = endpoints.iter();
            let learnt = learnt.filter(|(net, _)| !self.before.contains_key(*net));
            let learnt = learnt.map(|(net, class)| (*net, *class)).collect();
            self.old.end(learnt).await;
            self.before = endpoints;
        }
        protected
    }
}

/// Ends what is connected to BigQuery past this daemon by those who are enforced on.
pub(super) struct OldFlows {
    pub(super) enforce: Enforce,
    /// The id of the daemon's own cgroup.
    pub(super) daemon: u64,
    pub(super) workloads: Arc<Workloads>,
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
fn keep_true(maps: &mut EndpointMaps, before: &Endpoints, endpoints: &Endpoints) -> Option<String> {
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
