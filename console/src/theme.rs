//! What stands out, and how. The only place with colours: the rest of the screen names roles. No meaning is in colour alone; each has its word or
//! its glyph besides.

use clap::ValueEnum;
use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ordinary.
    Plain,
    /// Of less weight.
    Muted,
    /// A heading.
    Title,
    /// Open, or well.
    Open,
    /// Waiting for somebody.
    Pending,
    /// Ending soon, or used up soon.
    Warning,
    /// Refused, wrong, or not to be done lightly.
    Danger,
    /// What is selected.
    Selected,
    /// What was so when it was heard, which is too long ago.
    Stale,
}

/// A set of colours. Those of `dark` and `light` are told apart by people who do not see red or green; `plain` has none, and is what `NO_COLOR` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Theme {
    /// For a dark background.
    Dark,
    /// For a light one.
    Light,
    /// Without colour.
    Plain,
}

impl Theme {
    /// The theme that is meant: the one that is asked for, or none where `NO_COLOR` is set.
    pub(crate) fn chosen(asked: Option<Self>, is_no_color: bool) -> Self {
        match asked {
            Some(theme) => theme,
            None if is_no_color => Self::Plain,
            None => Self::Dark,
        }
    }

    /// How a role looks.
    pub(crate) const fn style(self, role: Role) -> Style {
        let bare = Style::new();
        let style = match role {
            Role::Plain | Role::Open | Role::Pending | Role::Muted => bare,
            Role::Stale => bare.add_modifier(Modifier::DIM),
            Role::Title | Role::Warning => bare.add_modifier(Modifier::BOLD),
            Role::Danger => bare.add_modifier(Modifier::BOLD.union(Modifier::REVERSED)),
            Role::Selected => bare.add_modifier(Modifier::REVERSED),
        };
        let Some(color) = self.color(role) else {
            return style;
        };
        style.fg(color)
    }

    /// From the palette of Okabe and Ito, as the nearest of 256 colours.
    const fn color(self, role: Role) -> Option<Color> {
        let (dark, light) = match role {
            Role::Plain | Role::Selected | Role::Stale => return None,
            Role::Muted => (245, 242),
            Role::Title => (74, 25),
            Role::Open => (36, 29),
            Role::Pending => (221, 94),
            Role::Warning => (214, 130),
            Role::Danger => (208, 160),
        };
        match self {
            Self::Dark => Some(Color::Indexed(dark)),
            Self::Light => Some(Color::Indexed(light)),
            Self::Plain => None,
        }
    }
}
