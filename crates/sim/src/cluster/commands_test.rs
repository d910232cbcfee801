use super::Commands;
use kontiki_engine::WriteBatch;
use kontiki_raftstore::Ticket;
use kontiki_server::families;

fn lock_of(key: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(families::TXN_LOCK, key.as_bytes(), b"lock");
    batch
}

#[test]
fn a_key_is_free_when_its_command_is_decided() {
    let commands = Commands::default();
    commands.observe(1, Ticket(1), Some(&lock_of("a")));
    commands.observe(1, Ticket(2), Some(&lock_of("b")));
    commands.observe(2, Ticket(1), Some(&lock_of("a")));
    commands.observe(1, Ticket(1), None);
    commands.observe(1, Ticket(3), Some(&lock_of("a")));
    assert_eq!(commands.overlap(), None);
}

#[test]
fn a_restarted_process_has_no_commands() {
    let commands = Commands::default();
    commands.observe(1, Ticket(1), Some(&lock_of("a")));
    commands.stopped(1);
    commands.observe(1, Ticket(1), Some(&lock_of("a")));
    assert_eq!(commands.overlap(), None);
}

#[test]
fn two_commands_of_a_key_at_once_are_found() {
    let commands = Commands::default();
    commands.observe(1, Ticket(1), Some(&lock_of("a")));
    commands.observe(1, Ticket(2), Some(&lock_of("a")));
    assert!(commands.overlap().expect("found").contains("before an earlier one is decided"));
}
