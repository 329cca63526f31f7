//! A terminal of somebody's in the world: tmux, which a program is run in, is typed into and is looked at.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::world::{Who, World, wait_for};

/// One terminal. It ends with this.
#[derive(Debug)]
pub struct Terminal<'a> {
    world: &'a World,
    who: Who,
    socket: PathBuf,
    server: Child,
}

impl<'a> Terminal<'a> {
    /// One of this size, with `command` in it.
    ///
    /// # Panics
    /// Where tmux does not run.
    #[must_use]
    pub fn start(world: &'a World, who: Who, (columns, rows): (u16, u16), command: &str) -> Self {
        let dir = world.own_folder(who, "terminal");
        let socket = dir.join("tmux.sock");
        // That of their terminal before, which answers nobody.
        let _ = std::fs::remove_file(&socket);
        // In the foreground: it ends where its test is killed.
        let server = world
            .run_as(who, "tmux")
            .args(["-D", "-u", "-f", "/dev/null", "-S"])
            .arg(&socket)
            .current_dir(&dir)
            .env("TERM", "xterm-256color")
            .env("HOME", &dir)
            // Whatever the shell of their account is: they have none.
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tmux runs");
        let terminal = Self {
            world,
            who,
            socket,
            server,
        };
        wait_for("tmux", || terminal.socket.exists());
        let size = (columns.to_string(), rows.to_string());
        // What it last said stays on screen.
        let stay = ["set-option", "-g", "remain-on-exit", "on", ";"];
        let begin = ["new-session", "-d", "-x", &size.0, "-y", &size.1, command];
        terminal.tmux(&[&stay[..], &begin[..]].concat());
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = self
            .world
            .run_as(self.who, "tmux")
            .args(["-u", "-S"])
            .arg(&self.socket)
            .current_dir(self.socket.parent().unwrap_or(&self.socket))
            .args(args)
            .env("TERM", "xterm-256color")
            .output()
            .expect("tmux runs");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is on screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What the terminal itself says of its pane, as tmux names it: `alternate_on`, `cursor_flag`, `pane_pid`.
    #[must_use]
    pub fn says(&self, what: &str) -> String {
        let form = format!("#{{{what}}}");
        let said = self.tmux(&["display-message", "-p", &form]);
        said.trim().to_owned()
    }

    /// Presses keys, one after another; names such as `Enter` are keys of their own.
    pub fn press(&self, keys: &[&str]) {
        for key in keys {
            self.tmux(&["send-keys", key]);
        }
    }

    /// Types a text as it is.
    pub fn type_in(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Waits until all of these are on screen, and gives the screen.
    #[track_caller]
    pub fn sees(&self, wanted: &[&str]) -> String {
        let mut screen = String::new();
        let is_there = (0..600).any(|_| {
            screen = self.screen();
            let is_there = wanted.iter().all(|text| screen.contains(text));
            if !is_there {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            is_there
        });
        assert!(is_there, "{wanted:?} is not on screen:\n{screen}");
        screen
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
