//! One hook's worker: sends what its queue says, and says what came of it. Only this task waits for the hook.

use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::notice::queue::{Attempt, GivenUp, Next};
use tokio_util::sync::CancellationToken;

use super::Working;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::random;

/// The longest sleep: timers stand still in suspend, the clock that decides does not.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    one: Arc<Working>,
    engine: Engine,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    work(&one, &engine, clock, stop).await;
    // The engine ends after all tasks.
    let left = one.queue().to_record_last();
    if let Some(left) = left {
        record(&one, &engine, left).await;
    }
}

async fn work(one: &Working, engine: &Engine, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        let now = clock.now();
        let (given_up, next) = {
            let mut queue = one.queue();
            (queue.to_record(now), queue.next(now))
        };
        if let Some(given_up) = given_up {
            record(one, engine, given_up).await;
        }
        let wait = match next {
            Next::Send(notice) => {
                let attempt = one.attempt(&notice, now.unix_ns, &stop).await;
                if stop.is_cancelled() && attempt != Attempt::Delivered {
                    // It is not settled: the next start tries it again.
                    return;
                }
                // Without chance all hooks of a host retry at once, which is no harm.
                let jitter = random::bytes().map_or(0, u16::from_ne_bytes);
                one.queue().settle(clock.now(), attempt, jitter);
                continue;
            }
            Next::At(at) => Duration::from_nanos(at.saturating_sub(now.boot_ns)).min(LOOK),
            Next::Idle => LOOK,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = one.more.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn record(one: &Working, engine: &Engine, given_up: GivenUp) {
    let (hook, GivenUp { count, why }) = (one.hook.name.clone(), given_up);
    tracing::warn!(hook, count, why, "notices were given up");
    let event = Event::NotificationFailed { hook, count, why };
    engine.note(event).await;
}
