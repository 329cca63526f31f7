//! Whether there is a metadata server of Google's to ask: one that is there and fails is another thing than none. Asks it for nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use super::super::{Endpoint, TokenError};

/// Where the firmware says what the machine is.
const PRODUCT: &str = "/sys/class/dmi/id/product_name";
/// What Google's machines are: "Google Compute Engine", and "Google" in a guest's guest.
const GOOGLES: &str = "Google";
/// Where it answers, on whatever of Google's a process runs.
const AT: (&str, u16) = ("metadata.google.internal", 80);
/// The bound on finding out, where the machine does not say. It is on the same machine, or one hop away.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether there is one. On a machine of Google's there always is; elsewhere (in a container that sees no firmware) it has to be reachable at its name.
///
/// # Errors
/// [`TokenError::Timeout`] or [`TokenError::Unusable`] where that cannot be told: it may be there.
pub(super) async fn is_there() -> Result<bool, TokenError> {
    if is_googles(Path::new(PRODUCT)) {
        return Ok(true);
    }
    let endpoint = Endpoint::Base;
    match tokio::time::timeout(TIMEOUT, is_reached(AT)).await {
        Ok(Ok(is_there)) => Ok(is_there),
        Ok(Err(_)) => Err(TokenError::Unusable {
            endpoint,
            why: "whether the machine has a metadata server cannot be told; name the source by token.base",
        }),
        Err(_) => Err(TokenError::Timeout { endpoint }),
    }
}

fn is_googles(product: &Path) -> bool {
    std::fs::read_to_string(product).is_ok_and(|name| name.trim().starts_with(GOOGLES))
}

async fn is_reached(at: (&str, u16)) -> io::Result<bool> {
    // Where it is, its name is known.
    let Ok(addresses) = lookup_host(at).await else {
        return Ok(false);
    };
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(true),
            Err(error) if is_nobody(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether nobody is there, and not somebody who is slow.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_googles_says_so_and_no_other_is_taken_for_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("product_name");
        assert!(!is_googles(&file), "no firmware is seen");
        for (name, is) in [
            ("Google Compute Engine\n", true),
            ("Google\n", true),
            ("Standard PC (Q35 + ICH9, 2009)\n", false),
            ("", false),
        ] {
            std::fs::write(&file, name).expect("written");
            assert_eq!(is_googles(&file), is, "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_name_or_no_such_name_is_no_server_and_somebody_there_is_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let at = |port| is_reached(("127.0.0.1", port));
        assert!(at(port).await.expect("told"));
        drop(listener);
        assert!(!at(port).await.expect("told"), "refused");
        let nowhere = is_reached(("metadata.google.invalid", 80)).await;
        assert!(!nowhere.expect("told"));
    }
}
