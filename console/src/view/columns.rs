//! Which columns each view has, by how much room there is. Data only.

use crate::app::View;

/// From this width on there are more columns.
const WIDE: u16 = 110;
/// Below this width there are fewer.
const NARROW: u16 = 78;

/// How many columns there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Only what must be seen.
    Narrow,
    /// What an ordinary terminal holds.
    Plain,
    /// All of it.
    Wide,
}

impl Room {
    pub(super) const fn of(width: u16) -> Self {
        if width < NARROW {
            Self::Narrow
        } else if width < WIDE {
            Self::Plain
        } else {
            Self::Wide
        }
    }
}

/// The columns of a view, each with its width in cells, for the room that there is. What has 0 shares what is left.
#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) const fn columns(view: View, room: Room) -> &'static [(&'static str, u16)] {
    match (view, room) {
        (View::Windows, Room::Narrow) => &[
            ("", 1),
            ("grant", 6),
            ("agent", 12),
            ("scope", 0),
            ("closes in", 13),
            ("bytes", 5),
        ],
        (View::Windows, Room::Plain) => &[
            ("", 1),
            ("grant", 6),
            ("agent", 14),
            ("scope", 0),
            ("closes in", 17),
            ("queries", 9),
            ("bytes", 7),
        ],
        (View::Windows, Room::Wide) => &[
            ("", 1),
            ("grant", 6),
            ("agent", 14),
            ("scope", 0),
            ("closes in", 21),
            ("queries", 9),
            ("bytes", 15),
            ("queries/s", 9),
            ("24 h", 5),
            ("by", 9),
        ],
        (View::Requests, Room::Narrow) => &[
            ("", 1),
            ("request", 7),
            ("agent", 12),
            ("scope", 0),
            ("for", 4),
            ("waits", 6),
        ],
        (View::Requests, Room::Plain) => &[
            ("", 1),
            ("request", 7),
            ("agent", 14),
            ("scope", 0),
            ("for", 5),
            ("waits", 7),
            ("reason", 0),
        ],
        (View::Requests, Room::Wide) => &[
            ("", 1),
            ("request", 8),
            ("agent", 16),
            ("scope", 0),
            ("for", 6),
            ("waits", 8),
            ("24 h", 5),
            ("wanting", 18),
            ("reason", 0),
        ],
        (View::Sessions, Room::Narrow) => &[
            ("", 1),
            ("query", 7),
            ("agent", 12),
            ("SQL or what it is of", 0),
            ("bytes", 8),
            ("status", 9),
        ],
        (View::Sessions, Room::Plain) => &[
            ("", 1),
            ("query", 7),
            ("grant", 6),
            ("agent", 12),
            ("SQL or what it is of", 0),
            ("bytes", 8),
            ("took", 8),
            ("status", 9),
        ],
        (View::Sessions, Room::Wide) => &[
            ("", 1),
            ("query", 7),
            ("grant", 6),
            ("agent", 14),
            ("method", 20),
            ("SQL or what it is of", 0),
            ("bytes", 8),
            ("took", 8),
            ("status", 9),
        ],
        (View::Log, Room::Narrow | Room::Plain | Room::Wide) => {
            &[("record", 8), ("time", 8), ("what", 0)]
        }
        (View::Refusals, Room::Narrow) => &[("times", 6), ("last", 8), ("agent", 12), ("why", 0)],
        (View::Refusals, Room::Plain) => &[
            ("times", 6),
            ("last", 8),
            ("agent", 14),
            ("why", 22),
            ("what", 0),
        ],
        (View::Refusals, Room::Wide) => &[
            ("times", 8),
            ("last", 8),
            ("agent", 16),
            ("process", 22),
            ("way", 10),
            ("why", 34),
            ("what", 0),
        ],
        (View::Agents, Room::Narrow) => &[
            ("", 1),
            ("agent", 14),
            ("last 24 h, newest right", 24),
            ("share", 5),
            ("live", 4),
            ("window", 6),
        ],
        (View::Agents, Room::Plain) => &[
            ("", 1),
            ("agent", 14),
            ("last 24 h, newest right", 24),
            ("share", 5),
            ("live", 4),
            ("window", 6),
            ("workload", 0),
        ],
        (View::Agents, Room::Wide) => &[
            ("", 1),
            ("agent", 14),
            ("last 24 h, the newest at the right", 48),
            ("share", 5),
            ("live", 4),
            ("window", 6),
            ("workload", 0),
        ],
        (View::Health, Room::Narrow | Room::Plain | Room::Wide) => {
            &[("", 1), ("what", 14), ("", 0)]
        }
    }
}
