use super::*;
use crate::config::Config;
use crate::consensus::Group;
use crate::consensus::wire::GroupState;
use crate::meta::INITIAL;
use crate::model::region_of_three;
use kontiki_env::rng::Rng;
use proptest::prelude::*;

fn group(region: &Region) -> Group {
    let (truncated_index, truncated_term) = (INITIAL.index, INITIAL.term);
    let state = GroupState { term: 1, truncated_index, truncated_term, ..GroupState::default() };
    Group::new(&Config::default(), PeerId(1), region, &state, Vec::new(), 1, Rng::new(1)).expect("valid")
}

fn sorted(mut state: ConfState) -> [Vec<u64>; 4] {
    let lists = [state.take_voters(), state.take_voters_outgoing(), state.take_learners(), state.take_learners_next()];
    lists.map(|mut list| {
        list.sort_unstable();
        list
    })
}

proptest! {
    /// The core's configuration and the descriptor change together, and a restarted core begins with the same one.
    #[test]
    fn the_core_has_the_descriptors_configuration(
        changes in prop::collection::vec(crate::region::members_test::any_change(), 1..40),
    ) {
        let mut region = region_of_three();
        let mut running = group(&region);
        for change in changes {
            let Ok(next) = region.changed(&change) else { continue };
            if next.peer(PeerId(1)).is_none() {
                continue;
            }
            running.apply_change(&change).map_err(TestCaseError::fail)?;
            region = next;
            let [now, restarted] = [&running, &group(&region)].map(|group| sorted(group.conf_state()));
            prop_assert_eq!(&now, &sorted(conf_state(&region)));
            prop_assert_eq!(&now, &restarted);
            prop_assert_eq!(running.is_voter(), region.role(PeerId(1)) != PeerRole::Learner);
        }
    }
}
