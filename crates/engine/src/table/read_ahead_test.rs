use super::*;
use crate::table::tests::count_reads;
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;

#[test]
fn reads_grow_from_the_second_block_on_and_stay_within_the_blocks() {
    let machine = SimMachine::from_seed(1);
    let path = Path::new("/file");
    let file = machine.env().fs.open(path, OpenMode::CreateNew).expect("a healthy disk");
    let bytes: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
    file.write_at(&bytes, 0).expect("a healthy disk");
    let stored = 1000;
    let handle = |block: u64| BlockHandle { offset: block * stored, length: stored - TRAILER_BYTES as u64 };
    let order = |direction| -> Vec<u64> {
        let blocks = 0..1900;
        if direction == Direction::Forward { blocks.collect() } else { blocks.rev().collect() }
    };
    let all_reads = count_reads(&machine);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut ahead = ReadAhead::new(direction, 1900 * stored, false);
        let before = all_reads();
        let reads = || all_reads() - before;
        for (step, block) in order(direction).into_iter().enumerate() {
            let found = ahead.read(&*file, path, handle(block)).expect("readable");
            assert_eq!(found, bytes[(block * stored) as usize..][..stored as usize]);
            assert!(ahead.bytes.len() <= LARGEST_BYTES);
            match step {
                0 => assert_eq!((reads(), ahead.bytes.len()), (1, 0), "a first block alone"),
                1 => assert_eq!((reads(), ahead.bytes.len()), (2, FIRST_BYTES)),
                _ => {}
            }
        }
        assert!((10..20).contains(&reads()), "{} reads", reads());
        ahead.restart();
        assert_eq!(ahead.next_bytes, LARGEST_BYTES, "a long walk is likely to go on");
    }
}
