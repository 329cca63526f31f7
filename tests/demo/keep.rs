//! The world left up for a hand trial: one script for each person, which runs a command as that person, inside the world.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::world::{Who, World, client_script, venv_python};

/// What is asked until the SQL engine answers: it is slow to let go of the long query that was cancelled.
const CHEAP: &str = "SELECT COUNT(*) FROM finance.daily";

/// Says how to get in, and stays until Ctrl-C.
pub(crate) fn for_a_hand_trial(world: &World) {
    println!("\nWaiting until the SQL engine is done with the long query …");
    let grant = world.open_window("demo-project.finance:read", "10m");
    harness::world::wait_for("the SQL engine", || {
        world.query(&[CHEAP])[0]["rows"].is_array()
    });
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let [agent, approver, operator] = [Who::Agent, Who::Approver, Who::Operator]
        .map(|who| script(world, who).display().to_string());
    let (python, client) = (venv_python(), client_script());
    println!(
        "
The world stays up until Ctrl-C. In another terminal, as root (without a command, each is a shell):

  {agent} enforcer request --scope demo-project.finance:read --ttl 5m --reason trial
  {approver} enforcer approve r-4
  {agent} {} {} 'SELECT COUNT(*) FROM finance.daily'
  {approver} enforcer-console
  {operator} enforcer status",
        python.display(),
        client.display()
    );
    loop {
        std::thread::park();
    }
}

fn script(world: &World, who: Who) -> PathBuf {
    let path = world.stage.dir().join(who.name());
    std::fs::write(&path, world.script(who)).expect("writes a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        .expect("makes it executable");
    path
}
