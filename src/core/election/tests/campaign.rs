//! The nominee (E3), and "Raft said no" (E2).

use super::*;

/// Node 3, which has answered round 1 of node 2 with this finding.
fn asked(finding: Finding) -> Election {
    let mut election = follower(3, 20);
    election.step(ms(10), received(2, query(round(2, 1), Some(leadership(1, 1)), Cause::ConnectionRefused)));
    election.step(ms(12), probed(round(2, 1), finding));
    election
}

fn agreed_death() -> ElectionMessage {
    nomination(round(2, 1), vec![standing(3, 20, GONE), standing(2, 50, GONE)], Campaign::AgreedDeath)
}

fn ok() -> Effect {
    send(2, ElectionMessage::Ok { round: round(2, 1) })
}

/// E3 (b): nominee and majority found the death: it agrees and takes the transfer path.
#[test]
fn e3_agreed_death_takes_the_transfer_path() {
    let mut election = asked(GONE);
    assert_eq!(election.step(ms(13), received(2, agreed_death())), [ok(), campaign(Campaign::AgreedDeath, 1)]);
    assert_eq!(election.phase(), Phase::Campaigning);
    assert_eq!(election.step(ms(14), received(2, agreed_death())), [ok()], "a duplicate is no second campaign");
}

/// E3: a nomination is not dropped because an own round is running.
#[test]
fn e3_a_nomination_is_taken_during_an_own_round() {
    let mut election = asked(GONE);
    let mut effects = vec![Effect::CoordinatorLost];
    effects.extend(calls(3, 1));
    assert_eq!(election.step(ms(13), suspected(1)), effects);
    assert_eq!(election.step(ms(13), received(2, agreed_death())), [ok(), campaign(Campaign::AgreedDeath, 1)]);
}

/// E3: no transfer path on others' word: the nominee's own finding in this round decides.
#[test]
fn e3_the_nominees_own_finding_decides() {
    let mut election = asked(ALIVE);
    assert_eq!(
        election.step(ms(13), received(2, agreed_death())),
        [ok(), campaign(Campaign::PreVote, 1)],
        "the voters' lease protects a live coordinator from that"
    );
}

/// E3: evidence of less than a majority, of another round, or none of its own: no answer.
#[test]
fn e3_a_nomination_without_evidence_is_refused() {
    let one_word = nomination(round(2, 1), vec![standing(3, 20, ALIVE), standing(2, 50, GONE)], Campaign::AgreedDeath);
    assert_eq!(asked(ALIVE).step(ms(13), received(2, one_word)), []);
    let standings = vec![standing(3, 20, GONE), standing(2, 50, GONE)];
    let other_round = nomination(round(2, 2), standings.clone(), Campaign::AgreedDeath);
    assert_eq!(asked(GONE).step(ms(13), received(2, other_round)), []);
    assert_eq!(follower(3, 20).step(ms(13), received(2, agreed_death())), []);
    let in_anothers_name = nomination(round(2, 1), standings, Campaign::AgreedDeath);
    assert_eq!(asked(GONE).step(ms(13), received(1, in_anothers_name)), []);
}

/// E1: a nominee that sees itself behind in the standings does not stand.
#[test]
fn e1_a_nominee_that_is_behind_refuses() {
    let longer = Standing { last_log: log(1, 11), ..standing(2, 50, GONE) };
    let message = nomination(round(2, 1), vec![standing(3, 20, GONE), longer], Campaign::AgreedDeath);
    assert_eq!(asked(GONE).step(ms(13), received(2, message)), []);
}

/// E3: an agreement about an older (term, coordinator) counts for nothing: a later leadership ends it, a later term makes it a
/// pre-vote.
#[test]
fn e3_an_agreement_about_an_older_leadership_counts_for_nothing() {
    let mut election = asked(GONE);
    election.step(ms(13), Input::Raft(view(2, Some(2))));
    assert_eq!(election.step(ms(14), received(2, agreed_death())), []);

    let mut election = asked(GONE);
    election.step(ms(13), Input::Raft(view(2, None)));
    assert_eq!(election.step(ms(14), received(2, agreed_death())), [ok(), campaign(Campaign::PreVote, 2)]);
}

/// E2: "Raft said no" is a state of its own, is logged, and is followed by a back-off; only the answer to the last question counts.
#[test]
fn e2_raft_said_no() {
    let mut election = asked(GONE);
    election.step(ms(13), suspected(1));
    election.step(ms(13), received(2, agreed_death()));
    assert_eq!(election.step(ms(14), refused(0)), [], "a late refusal of an older term changes nothing");
    assert_eq!(election.phase(), Phase::Campaigning);
    assert_eq!(election.step(ms(15), refused(1)), [Effect::CampaignRefused { term: Term(1), why: "no".into() }]);
    assert_eq!(election.phase(), Phase::RaftSaidNo);
    assert_eq!(election.step(ms(15), refused(1)), [], "once");
    assert_eq!(election.step(ms(54), Input::Tick), []);
    assert_eq!(election.step(ms(55), Input::Tick), [campaign(Campaign::AgreedDeath, 1)]);
}

/// E2: two campaigns of one node in one vacancy are a back-off apart, also when another nomination comes.
#[test]
fn e2_campaigns_are_a_back_off_apart() {
    let mut election = asked(GONE);
    election.step(ms(13), suspected(1));
    election.step(ms(13), received(2, agreed_death()));
    election.step(ms(14), refused(1));
    assert_eq!(election.step(ms(20), received(2, agreed_death())), [ok()]);
    assert_eq!(election.step(ms(53), Input::Tick), []);
    assert_eq!(election.step(ms(54), Input::Tick), [campaign(Campaign::AgreedDeath, 1)]);
}

/// E3: a candidacy ends with its time, and a later nomination begins a new one.
#[test]
fn e3_a_candidacy_ends_with_its_time() {
    let mut election = asked(GONE);
    election.step(ms(13), received(2, agreed_death()));
    assert_eq!(election.step(ms(163), Input::Tick), []);
    assert_eq!(election.phase(), Phase::Idle);
    assert_eq!(election.step(ms(164), received(2, agreed_death())), [ok(), campaign(Campaign::AgreedDeath, 1)]);
}

/// E3 (a): a pre-vote is asked again until the voters' lease has run out.
#[test]
fn e3_a_pre_vote_is_repeated() {
    let mut election = asked(Finding::RaftSilent);
    election.step(ms(12), Input::Suspected { node: node(1), cause: Cause::RaftSilence });
    let standings = vec![standing(3, 20, Finding::RaftSilent), standing(2, 50, GONE)];
    let message = nomination(round(2, 1), standings, Campaign::PreVote);
    assert_eq!(election.step(ms(13), received(2, message)), [ok(), campaign(Campaign::PreVote, 1)]);
    assert_eq!(election.step(ms(52), Input::Tick), []);
    assert_eq!(election.step(ms(53), Input::Tick), [campaign(Campaign::PreVote, 1)]);
    assert_eq!(election.step(ms(93), Input::Tick), [campaign(Campaign::PreVote, 1)]);
    assert_eq!(election.step(ms(462), Input::Tick), [campaign(Campaign::PreVote, 1)], "the lease and 150 ms");
    election.step(ms(463), Input::Tick);
    assert_eq!(election.phase(), Phase::Calling, "its time is over, and the vacancy is not");
}

/// E3: a campaign is not repeated against a coordinator that is heard again.
#[test]
fn e3_no_second_campaign_against_a_coordinator_that_is_heard_again() {
    let mut election = asked(GONE);
    election.step(ms(13), suspected(1));
    election.step(ms(13), received(2, agreed_death()));
    election.step(ms(14), refused(1));
    assert_eq!(
        election.step(ms(20), Input::Trusted { node: node(1) }),
        [Effect::CoordinatorConfirmed(leadership(1, 1))]
    );
    assert_eq!(election.step(ms(54), Input::Tick), []);
    assert_eq!(election.phase(), Phase::Idle);
}

/// E3: what was found before the coordinator was heard again carries no nomination.
#[test]
fn e3_a_finding_ends_when_the_coordinator_is_heard_again() {
    let mut election = asked(GONE);
    election.step(ms(13), suspected(1));
    election.step(ms(14), Input::Trusted { node: node(1) });
    assert_eq!(election.step(ms(15), received(2, agreed_death())), []);
}

/// E2: late news of the vacant leadership itself neither ends the candidacy nor makes a second campaign possible (found by the model).
#[test]
fn e2_late_news_of_the_vacancy_changes_nothing() {
    let mut election = Election::new(settings(3), 0);
    election.step(ms(0), Input::Raft(view(1, None)));
    election.step(ms(0), own(20));
    election.step(ms(10), received(2, query(round(2, 1), Some(leadership(1, 1)), Cause::ConnectionRefused)));
    election.step(ms(12), probed(round(2, 1), GONE));
    assert_eq!(election.step(ms(13), received(2, agreed_death())), [ok(), campaign(Campaign::AgreedDeath, 1)]);
    assert_eq!(election.step(ms(14), Input::Raft(view(1, Some(1)))), [Effect::CoordinatorConfirmed(leadership(1, 1))]);
    assert_eq!(election.phase(), Phase::Campaigning);
    assert_eq!(election.step(ms(15), suspected(1)), [Effect::CoordinatorLost]);
}
