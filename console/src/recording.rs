//! Recordings: what a console took in and at which size it drew, a line each, so that the same lines make the same screens and the same deeds. The first
//! line says how it was made. Only writes and reads: nothing is drawn here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use enforcer_proto::checkpoint::Verifier;
use serde::{Deserialize, Serialize};

use crate::app::signed::Signer;
use crate::app::{Mode, Model, Msg};

/// The form of recordings. What is written in another means something else, or nothing.
const FORM: u32 = 2;
/// The longest first line, bytes.
const HEAD_BYTES_MAX: u64 = 4 * 1024;
/// The longest other line, bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The largest screen that is replayed, cells.
const CELLS_MAX: u32 = 1_000_000;

/// How a recording was made: its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    /// Its form.
    recording: u32,
    /// The console's release.
    release: String,
    /// Whether the console was started with `--read-only`.
    is_read_only: bool,
    /// The key that checkpoints were checked with.
    log_key: Option<String>,
}

/// A message, and when it came: every other line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stamped {
    /// Milliseconds since the console started.
    pub(crate) at_ms: u64,
    /// What happened.
    pub(crate) msg: Msg,
}

/// Where messages go that are kept for a replay.
#[derive(Debug)]
pub(crate) struct Recording(Option<BufWriter<File>>);

impl Recording {
    /// Nothing is kept.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// To a new file, readable by its owner alone: it holds what the log holds.
    ///
    /// # Errors
    /// Where it is there already, or cannot be made.
    pub(crate) fn to(path: &Path, mode: Mode, key: Option<&Verifier>) -> anyhow::Result<Self> {
        let begin = || {
            let mut file = BufWriter::new(
                File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)?,
            );
            let head = Head {
                recording: FORM,
                release: env!("CARGO_PKG_VERSION").to_owned(),
                is_read_only: mode == Mode::ReadOnly,
                log_key: key.map(Verifier::to_string),
            };
            write_line(&mut file, &head)?;
            file.flush()?;
            io::Result::Ok(file)
        };
        let file =
            begin().with_context(|| format!("the recording {} cannot be made", path.display()))?;
        Ok(Self(Some(file)))
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a message. Where that fails nothing more is kept, and what says so is given back: what is watched matters more than its recording.
    pub(crate) fn take(&mut self, at_ms: u64, msg: &Msg) -> Option<Msg> {
        let file = self.0.as_mut()?;
        let stamped = Stamped {
            at_ms,
            msg: msg.clone(),
        };
        let written = write_line(file, &stamped);
        self.goes_on(written)
    }

    /// What was seen so far can be replayed, however the console ends.
    pub(crate) fn flush(&mut self) -> Option<Msg> {
        let written = self.0.as_mut()?.flush();
        self.goes_on(written)
    }

    fn goes_on(&mut self, written: io::Result<()>) -> Option<Msg> {
        let why = written.err()?;
        self.0 = None;
        Some(Msg::Unrecorded(why.to_string()))
    }
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// A recording that is read, line by line.
#[derive(Debug)]
pub(crate) struct Reading {
    path: PathBuf,
    file: BufReader<File>,
    is_read_only: bool,
    key: Option<Verifier>,
    /// How many lines were read.
    count: u64,
}

impl Reading {
    /// Opens one, all of whose lines can be read.
    ///
    /// # Errors
    /// Where it cannot be read, or is none of this form.
    pub(crate) fn whole(path: &Path) -> anyhow::Result<Self> {
        // It is read twice, so that what is wrong with it is said before the screen is taken, and it need not be held in memory.
        let mut first = Self::open(path)?;
        while first.take()?.is_some() {}
        Self::open(path)
    }

    fn open(path: &Path) -> anyhow::Result<Self> {
        let at = path.display();
        let file =
            File::open(path).with_context(|| format!("the recording {at} cannot be read"))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        (&mut file)
            .take(HEAD_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("the recording {at} cannot be read"))?;
        let Ok(head) = serde_json::from_slice::<Head>(&line) else {
            bail!(
                "{at} is no recording, or one of an older release: its first line does not say how it was made; only the release that made it shows it"
            );
        };
        if head.recording != FORM {
            bail!(
                "{at} was made by release {}, in form {} of recordings, and this release reads form {FORM}: only the release that made it shows it",
                head.release,
                head.recording
            );
        }
        let key = head.log_key.map(|key| key.parse()).transpose();
        Ok(Self {
            path: path.to_owned(),
            file,
            is_read_only: head.is_read_only,
            key: key.with_context(|| format!("the key that {at} names"))?,
            count: 1,
        })
    }

    /// The console as it was when the recording began.
    pub(crate) fn model(&self) -> Model {
        let mut model = Model::new(Mode::Replay {
            is_read_only: self.is_read_only,
        });
        model.signer = Signer::new(self.key.clone());
        model
    }

    /// The next message; none behind the last, and none of a line that was cut off by the end of the console that kept it.
    ///
    /// # Errors
    /// Where the line is none of a recording.
    pub(crate) fn take(&mut self) -> anyhow::Result<Option<Stamped>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.file).take(LINE_BYTES_MAX + 1);
        bounded.read_until(b'\n', &mut line)?;
        let (nth, at) = (self.count.saturating_add(1), self.path.display());
        self.count = nth;
        if line.len() as u64 > LINE_BYTES_MAX {
            bail!(
                "line {nth} of {at} is longer than {LINE_BYTES_MAX} bytes, as none of a recording is"
            );
        }
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let stamped: Stamped = serde_json::from_slice(&line)
            .with_context(|| format!("line {nth} of {at} is no line of a recording"))?;
        if let Msg::Drawn(columns, rows) = stamped.msg
            && u32::from(columns) * u32::from(rows) > CELLS_MAX
        {
            bail!("line {nth} of {at} is of a screen of {columns}×{rows}, larger than any");
        }
        Ok(Some(stamped))
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::checkpoint::Keyholder;
    use enforcer_proto::id::GrantId;
    use enforcer_proto::wire::Status;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;

    use super::*;
    use crate::app::Effect;
    use crate::app::key::Key;
    use crate::app::popup::Deed;
    use crate::app::standing::STANDS_MS;
    use crate::demo;
    use crate::sheet;
    use crate::theme::Theme;

    fn path(name: &str) -> PathBuf {
        let name = format!("console-recording-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    /// A console that is recorded as the loop does it.
    struct Live {
        model: Model,
        recording: Recording,
        size: (u16, u16),
    }

    impl Live {
        fn takes(&mut self, msg: Msg) -> Vec<Effect> {
            let at_ms = self.model.at_ms + 700;
            assert_eq!(self.recording.take(at_ms, &msg), None);
            let effects = self.model.update(at_ms, msg);
            let drawn = Msg::Drawn(self.size.0, self.size.1);
            for msg in [Some(drawn), None] {
                let shown = || crate::view::shown(&self.model).map(Msg::Shown);
                if let Some(msg) = msg.or_else(shown) {
                    assert_eq!(self.recording.take(at_ms, &msg), None);
                    self.model.update(at_ms, msg);
                }
            }
            effects
        }

        fn types(&mut self, keys: &[Key]) -> Vec<Effect> {
            let all = keys.iter().flat_map(|key| self.takes(Msg::Key(*key)));
            all.collect()
        }
    }

    /// What is done and shown by what was recorded.
    fn replayed(path: &Path) -> (Vec<Effect>, Model) {
        let mut recording = Reading::whole(path).expect("a recording");
        let (mut model, mut effects) = (recording.model(), Vec::new());
        while let Some(Stamped { at_ms, msg }) = recording.take().expect("a line") {
            effects.extend(model.update(at_ms, msg));
        }
        (effects, model)
    }

    fn story() -> Vec<Msg> {
        demo::story().expect("it is well made")
    }

    /// Sixty windows, more than a page of any of the screens.
    fn many() -> Status {
        let status = story().into_iter().find_map(|msg| {
            let Msg::Status(status) = msg else {
                return None;
            };
            Some(*status)
        });
        let mut status = status.expect("it begins with one");
        let open = status.grants.iter().find(|grant| grant.open).cloned();
        let open = open.expect("one is open");
        let numbered = |n: u64| {
            let mut grant = open.clone();
            grant.grant = format!("g-{n}").parse().expect("an id");
            grant
        };
        status.grants = (1..=60).map(numbered).collect();
        status
    }

    #[test]
    fn what_was_done_on_a_screen_is_done_again_whatever_screen_it_is_looked_at_on() {
        let mut ended = Vec::new();
        for size in [(120, 40), (80, 24), (60, 12)] {
            let path = path(&format!("{}x{}", size.0, size.1));
            let mut live = Live {
                model: Model::new(Mode::Full),
                recording: Recording::to(&path, Mode::Full, None).expect("a file"),
                size,
            };
            live.takes(Msg::Status(Box::new(many())));
            live.types(&[Key::PageDown, Key::Char('r')]);
            // It stands there, and the daemon says the same meanwhile.
            for _ in 0..=STANDS_MS / 700 {
                live.takes(Msg::Status(Box::new(many())));
            }
            let did = live.types(&[Key::Char('y')]);
            let Live {
                model, recording, ..
            } = live;
            drop(recording);
            let (again, shown) = replayed(&path);
            std::fs::remove_file(&path).expect("it is there");
            assert_eq!(did, again, "{size:?}");
            let [Effect::Do(Deed::Revoke(grant))] = did[..] else {
                panic!("{size:?}: {did:?}");
            };
            ended.push(grant);
            assert_eq!((shown.size, shown.page), (size, model.page));
            assert_eq!(shown.popup, model.popup);
            let text = |model: &Model| sheet::text_of(&sheet::picture(model, Theme::Plain));
            let below = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(below(text(&shown)), below(text(&model)), "{size:?}");
        }
        // A page is another one on each of them, so that each ended another window.
        ended.sort_unstable_by_key(GrantId::to_string);
        ended.dedup();
        assert_eq!(ended.len(), 3, "{ended:?}");
    }

    #[test]
    fn that_a_console_only_looked_and_which_key_it_had_is_recorded() {
        let path = path("read-only");
        let ours = Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name");
        let key = ours.verifier();
        let mut live = Live {
            model: Model::new(Mode::ReadOnly),
            recording: Recording::to(&path, Mode::ReadOnly, Some(&key)).expect("a file"),
            size: (80, 24),
        };
        live.model.signer = Signer::new(Some(key));
        for msg in story() {
            live.takes(msg);
        }
        live.types(&[Key::Char('1'), Key::Char('L')]);
        drop(live);
        let (effects, model) = replayed(&path);
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!((effects, &model.popup), (Vec::new(), &None));
        let said = sheet::text_of(&sheet::picture(&model, Theme::Plain));
        assert!(
            said.contains("started with --read-only") && said.contains("RECORDING"),
            "{said}"
        );
        // The demonstration's checkpoint is signed by nobody.
        assert!(said.contains("THE LOG IS NOT WHAT WAS SIGNED"), "{said}");
    }

    #[test]
    fn what_is_no_recording_of_this_form_is_refused_in_a_sentence() {
        let path = path("refused");
        let old = r#"{"at_ms":0,"msg":"Tick"}"#;
        let other = r#"{"recording":1,"release":"0.0.9","is_read_only":false,"log_key":null}"#;
        let head = other.replace(":1,", ":2,");
        let large = format!("{head}\n{{\"at_ms\":0,\"msg\":{{\"Drawn\":[65535,65535]}}}}\n");
        let nonsense = format!("{head}\nnonsense\n");
        for (text, said) in [
            (old.as_bytes(), "does not say how it was made"),
            (&b""[..], "does not say how it was made"),
            (&[0; 100_000][..], "does not say how it was made"),
            (other.as_bytes(), "was made by release 0.0.9, in form 1"),
            (large.as_bytes(), "larger than any"),
            (nonsense.as_bytes(), "line 2 of "),
        ] {
            std::fs::write(&path, text).expect("writes");
            let why = Reading::whole(&path).expect_err(said).to_string();
            assert!(why.contains(said), "{why}");
        }
        // A line that does not end is read no further than one may be long.
        let file = File::options().write(true).truncate(true).open(&path);
        let mut file = file.expect("it is there");
        writeln!(file, "{head}").expect("writes");
        file.set_len(2 * LINE_BYTES_MAX).expect("zeros");
        let why = Reading::whole(&path).expect_err("zeros").to_string();
        assert!(
            why.contains("line 2 of ") && why.contains("longer than"),
            "{why}"
        );
        // What the end of a console cut off is passed over.
        std::fs::write(&path, format!("{head}\n{old}\n{{\"at_ms\":7")).expect("writes");
        assert!(Reading::whole(&path).is_ok());
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_not_the_console() {
        let full = File::options().write(true).open("/dev/full");
        let mut recording = Recording(Some(BufWriter::new(full.expect("it is there"))));
        let kept = recording.take(0, &Msg::Tick);
        let Some(lost @ Msg::Unrecorded(_)) = kept.or_else(|| recording.flush()) else {
            panic!("nothing can be written");
        };
        assert!(!recording.is_on() && recording.flush().is_none());
        let mut model = Model::new(Mode::Full);
        for msg in story().into_iter().chain([lost]) {
            model.update(0, msg);
        }
        let said = sheet::text_of(&sheet::picture(&model, Theme::Plain));
        assert!(said.contains("THE RECORDING HAS STOPPED"), "{said}");
    }

    #[test]
    fn a_screen_is_shown_on_another_as_far_as_it_has_room_and_that_it_has_none_is_said() {
        let mut model = Model::new(Mode::Replay {
            is_read_only: false,
        });
        for msg in story().into_iter().chain([Msg::Drawn(80, 24)]) {
            model.update(0, msg);
        }
        let picture = sheet::picture(&model, Theme::Plain);
        let on = |columns, rows| {
            let mut screen = Buffer::empty(Rect::new(0, 0, columns, rows));
            sheet::show(&mut screen, &picture, ratatui::style::Style::new());
            sheet::text_of(&screen)
        };
        assert_eq!(on(80, 24), sheet::text_of(&picture));
        let larger = on(100, 30);
        assert!(larger.starts_with(&sheet::text_of(&picture)), "{larger}");
        for size in [(60, 24), (80, 12), (1, 1)] {
            let said = on(size.0, size.1);
            let is_said = "recorded at 80×24: not all of it has room here; q ends";
            let last = said.lines().last().unwrap_or_default();
            assert!(!last.is_empty() && is_said.starts_with(last), "{said}");
        }
    }
}
