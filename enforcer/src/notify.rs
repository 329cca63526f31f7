//! Tells hooks, such as a pager or a chat, of what is on record. It follows the log, so nobody is told what is not durable, and nothing that
//! decides ever waits for it: whatever a hook does or does not do, its own queue is all that fills.
//!
//! Notices arrive in order and at least once: a restart goes on at the record that every notice before had arrived of (`notify.json` in the
//! state folder). Must not: decide, or make a notice of anything but a record.

mod cursor;
mod follow;
mod key;
mod webhook;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use enforcer_proto::notice::queue::{Attempt, Queue};
use enforcer_proto::notice::{Notice, NoticeKind};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::text::{safe_line, shorten};
use enforcer_proto::wire::{HookView, NotifyTested};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{Format, Hook, Send};
use crate::engine::Engine;
use crate::helper::Helper;
use crate::upstream::Upstream;
use key::Key;
pub use key::KeyError;
use webhook::Poster;

/// The longest reason why an attempt failed that is kept, bytes.
const TROUBLE_BYTES_MAX: usize = 512;
/// How many may try at once whether notices arrive.
const TESTS_MAX: usize = 2;

/// What the notifier needs.
#[derive(Debug)]
pub struct Options {
    /// The host's name.
    pub host: String,
    /// The hooks.
    pub hooks: Vec<Hook>,
    /// The folder that the cursor is in.
    pub state_dir: PathBuf,
    /// The log's folder.
    pub audit_dir: PathBuf,
    /// The cgroup in which programs run.
    pub cgroup: PathBuf,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What posts.
    pub upstream: Arc<Upstream>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One hook at work.
#[derive(Debug)]
struct Working {
    hook: Hook,
    sender: Sender,
    queue: Mutex<Queue>,
    /// Something was put into the queue.
    more: tokio::sync::Notify,
}

#[derive(Debug)]
enum Sender {
    Command(Helper),
    Poster(Box<Poster>),
}

/// The hooks at work.
#[derive(Debug)]
pub struct Notifier {
    host: String,
    clock: Arc<dyn Clock>,
    working: Vec<Arc<Working>>,
    tests: Semaphore,
}

/// Reads the keys of these hooks as the daemon would, and gives nothing: for a check of the configuration.
///
/// # Errors
/// What is wrong with one, and how it is put right.
pub fn check(hooks: &[Hook]) -> Result<()> {
    for hook in hooks {
        match &hook.send {
            Send::Webhook(webhook) => {
                if let Some(place) = &webhook.key {
                    Key::read(place).with_context(|| format!("the key of notify {}", hook.name))?;
                }
            }
            Send::Command(command) => {
                let file = command.words.first().map_or("", String::as_str);
                let found = std::fs::metadata(file);
                let found =
                    found.with_context(|| format!("notify {}: looking for {file}", hook.name))?;
                anyhow::ensure!(found.is_file(), "notify {}: {file} is no file", hook.name);
            }
        }
    }
    Ok(())
}

/// Starts telling the hooks, from where the last run stopped. Without hooks nothing runs.
///
/// # Errors
/// When a key cannot be used.
pub fn start(
    options: Options,
    engine: &Engine,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Arc<Notifier>> {
    let cursor = cursor::Cursor::open(&options.state_dir);
    let newest = *engine.records().borrow();
    let mut working = Vec::new();
    for (at, hook) in options.hooks.iter().enumerate() {
        let sender = match &hook.send {
            Send::Command(command) => Sender::Command(Helper::new(
                options.cgroup.clone(),
                command.clone(),
                hook.name.clone(),
            )),
            Send::Webhook(webhook) => {
                let key = webhook.key.as_ref().map(Key::read).transpose();
                let key = key.with_context(|| format!("the key of notify {}", hook.name))?;
                let upstream = Arc::clone(&options.upstream);
                Sender::Poster(Box::new(Poster::new(
                    upstream,
                    at as u64,
                    webhook.clone(),
                    key,
                )))
            }
        };
        let from = cursor.of(&hook.name, newest);
        working.push(Arc::new(Working {
            hook: hook.clone(),
            sender,
            queue: Mutex::new(Queue::new(options.host.clone(), hook.retry_for, from)),
            more: tokio::sync::Notify::new(),
        }));
    }
    for one in &working {
        let clock = Arc::clone(&options.clock);
        let run = worker::run(Arc::clone(one), engine.clone(), clock, stop.clone());
        tasks.spawn(run);
    }
    let notifier = Arc::new(Notifier {
        host: options.host.clone(),
        clock: Arc::clone(&options.clock),
        working,
        tests: Semaphore::new(TESTS_MAX),
    });
    if !notifier.working.is_empty() {
        let follower = follow::Follower::new(&options, cursor, notifier.working.clone());
        tasks.spawn(follower.run(engine.records(), stop.clone()));
    }
    Ok(notifier)
}

impl Notifier {
    /// What each hook has done so far.
    #[must_use]
    pub fn views(&self) -> Vec<HookView> {
        let views = self.working.iter().map(|one| {
            let counts = one.queue().counts();
            HookView {
                hook: one.hook.name.clone(),
                delivered: counts.delivered,
                given_up: counts.given_up,
                waiting: counts.waiting,
                trouble: counts.trouble,
            }
        });
        views.collect()
    }

    /// Sends a notice that says that it is a test, past the queue, once: to the hook of this name, or to each.
    ///
    /// # Errors
    /// The refusal to answer with: no such hook, or too many try at once.
    pub async fn test(&self, name: Option<&str>) -> Result<Vec<NotifyTested>, Refusal> {
        let chosen = self.working.iter();
        let chosen = chosen.filter(|one| name.is_none_or(|name| one.hook.name == name));
        let chosen: Vec<_> = chosen.cloned().collect();
        if chosen.is_empty() {
            let what = name.map_or_else(
                || "The configuration has no [[notify]] section".to_owned(),
                |name| format!("No [[notify]] section has the name {}", safe_line(name, 40)),
            );
            return Err(Refusal::new(Code::InputInvalid, what));
        }
        let Ok(_place) = self.tests.try_acquire() else {
            let what = format!("{TESTS_MAX} others try right now whether notices arrive");
            return Err(Refusal::new(Code::Overloaded, what));
        };
        let now = self.clock.now();
        let summary = "a test: somebody tries whether notices arrive";
        let notice = Notice::new(&self.host, 0, now.unix_ns, NoticeKind::Test, summary);
        let never = CancellationToken::new();
        let tried = chosen.iter().map(|one| async {
            let attempt = one.attempt(&notice, now.unix_ns, &never).await;
            NotifyTested {
                hook: one.hook.name.clone(),
                trouble: trouble(attempt),
            }
        });
        Ok(futures_util::future::join_all(tried).await)
    }
}

fn trouble(attempt: Attempt) -> Option<String> {
    match attempt {
        Attempt::Delivered => None,
        Attempt::Failed(why) | Attempt::Rejected(why) => Some(why),
    }
}

impl Working {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to send a notice once, within the hook's time; with `stop` it is given up at once, and nothing of it left behind.
    async fn attempt(&self, notice: &Notice, unix_ns: u64, stop: &CancellationToken) -> Attempt {
        let body = body(self.hook.format, notice);
        let limit = self.hook.time_limit;
        let attempt = match &self.sender {
            Sender::Command(helper) => {
                let line = [&body[..], b"\n"].concat();
                match helper.run(line, limit, stop).await {
                    Ok(()) => Attempt::Delivered,
                    Err(why) => Attempt::Failed(why),
                }
            }
            Sender::Poster(poster) => {
                let posting = tokio::time::timeout(limit, poster.post(body, unix_ns));
                match stop.run_until_cancelled(posting).await {
                    Some(Ok(attempt)) => attempt,
                    Some(Err(_)) => {
                        Attempt::Failed(format!("no answer within {} s", limit.as_secs()))
                    }
                    None => Attempt::Failed("the daemon stops".to_owned()),
                }
            }
        };
        match attempt {
            Attempt::Delivered => Attempt::Delivered,
            Attempt::Failed(why) => Attempt::Failed(safe(&why)),
            Attempt::Rejected(why) => Attempt::Rejected(safe(&why)),
        }
    }
}

fn safe(why: &str) -> String {
    let mut why = safe_line(why, TROUBLE_BYTES_MAX);
    shorten(&mut why, TROUBLE_BYTES_MAX);
    why
}

/// What is sent of a notice. It is plain data with string keys: its serialisation cannot fail.
fn body(format: Format, notice: &Notice) -> Vec<u8> {
    let body = match format {
        Format::Json => serde_json::to_vec(notice),
        Format::Slack => {
            // Texts of agents are in it: nothing in them is to be taken for a link or for layout.
            let message = serde_json::json!({"text": notice.slack_text(), "mrkdwn": false, "unfurl_links": false, "unfurl_media": false});
            serde_json::to_vec(&message)
        }
    };
    body.unwrap_or_default()
}
