//! Keeps the uplink guard on every interface that leads out, as they come and go.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kernel::{Filter, Interface, Uplink, Uplinks};

/// The longest time between two looks, should no word of a change come: a guard that somebody took away is missed by then.
const LOOK: Duration = Duration::from_secs(5);

/// What is guarded, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guarded {
    /// The names of the interfaces.
    pub(super) names: Vec<String>,
    /// Every interface that leads out.
    pub(super) interfaces: Vec<Interface>,
    /// One sentence each.
    pub(super) problems: Vec<String>,
}

/// Guards what is there now, and from then on what comes. On its return every interface there was is guarded, or its problem is known.
pub(super) async fn keep(
    mut uplinks: Uplinks,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Guarded>> {
    let (connection, handle, mut changes) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            .context("watching the network interfaces")?;
    tasks.spawn({
        let stop = stop.clone();
        async move {
            stop.run_until_cancelled(connection).await;
        }
    });
    let (sender, guarded) = watch::channel(Guarded::default());
    look(&mut uplinks, &handle, &sender).await;
    tasks.spawn(async move {
        while stop
            .run_until_cancelled(changed(&mut changes))
            .await
            .is_some()
        {
            look(&mut uplinks, &handle, &sender).await;
        }
    });
    Ok(guarded)
}

/// Waits for word of a change, or for the time to look anyhow.
async fn changed(changes: &mut (impl Stream + Unpin)) {
    let word = async {
        if changes.next().await.is_none() {
            // No more word will come.
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(LOOK, word).await;
}

async fn look(uplinks: &mut Uplinks, handle: &Handle, sender: &watch::Sender<Guarded>) {
    let mut interfaces = Vec::new();
    let problems = match found(handle, uplinks.reads_filters()).await {
        Ok(found) => {
            interfaces.extend(found.iter().map(|uplink| uplink.interface.clone()));
            uplinks.set(&found)
        }
        Err(error) => vec![format!("the network interfaces cannot be listed: {error}")],
    };
    let names = uplinks.names().map(ToOwned::to_owned).collect();
    let now = Guarded {
        names,
        interfaces,
        problems,
    };
    sender.send_if_modified(|before| {
        let is_news = *before != now;
        if is_news {
            for problem in &now.problems {
                tracing::error!(problem, "the uplink guard has a gap");
            }
            tracing::info!(interfaces = now.names.join(" "), "uplinks guarded");
            *before = now;
        }
        is_news
    });
}

async fn found(handle: &Handle, with_filters: bool) -> Result<Vec<Uplink>, rtnetlink::Error> {
    let found: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let leading_out = found.iter().filter_map(Interface::that_leads_out);
    let mut found: Vec<Uplink> = leading_out.map(Uplink::from).collect();
    if with_filters {
        for uplink in &mut found {
            // Of one that has gone since it was listed there are none, and the next look does not list it.
            uplink.egress = filters(handle, uplink.interface.index)
                .await
                .unwrap_or_default();
        }
    }
    Ok(found)
}

/// What filters an interface's way out, in the order in which that runs.
async fn filters(handle: &Handle, index: u32) -> Result<Vec<Filter>> {
    let filters = handle.traffic_filter(i32::try_from(index)?).get().egress();
    let found: Vec<TcMessage> = filters.execute().try_collect().await?;
    Ok(found.iter().filter_map(filter).collect())
}

/// One of them; none where the message only announces those of a kind.
fn filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    let options = message.attributes.iter().filter_map(|attribute| {
        if let TcAttribute::Options(options) = attribute {
            Some(options)
        } else {
            None
        }
    });
    let program = options.flatten().find_map(|option| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
            Some(*id)
        } else {
            None
        }
    });
    // The upper half is the priority, the lower one the protocol.
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    (handle != 0).then_some(Filter {
        priority,
        handle,
        program,
    })
}
