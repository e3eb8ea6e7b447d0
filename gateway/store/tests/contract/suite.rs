//! The list of cases, made into tests for each backend.

macro_rules! cases {
    ($from:ident, $backend:ident: $($module:ident { $($case:ident),* $(,)? })*) => {
        mod $backend {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$module::$case(crate::$from::$backend).await;
                }
            )*)*
        }
    };
}

/// Runs the whole contract on each backend that the module makes.
macro_rules! contract {
    ($from:ident: $($backend:ident),*) => {
        $(cases! { $from, $backend:
            records {
                what_is_written_is_read_in_the_order_of_the_keys,
                changes_that_leave_together_have_outcomes_of_their_own,
                versions_grow_and_are_never_used_twice,
                a_condition_that_fails_changes_nothing_and_shows_the_record,
                a_batch_is_all_or_nothing,
                a_touch_moves_the_end_and_nothing_else,
                every_record_but_a_decision_ends_with_its_lifetime,
                reads_in_a_commit_see_its_writes,
                rules_of_a_batch_are_kept,
                what_is_too_large_is_refused,
                errors_come_in_the_promised_order,
            }
            leases {
                one_holder_at_a_time,
                tokens_grow_with_each_grant,
                a_lapsed_lease_cannot_be_renewed,
                a_holder_that_lost_its_lease_can_write_nothing,
                a_released_lease_wakes_who_waits,
            }
            timers {
                due_timers_are_claimed_in_order_and_only_once,
                a_claim_that_is_not_completed_comes_again,
                setting_a_timer_again_replaces_it,
                completing_a_stale_claim_does_nothing,
                cancelled_timers_never_fire,
                shards_are_served_under_their_leases,
                a_handler_commits_its_work_and_its_claim_at_once,
                an_earlier_timer_wakes_who_sleeps,
                a_walk_names_every_timer_that_stays,
            }
            queues {
                items_come_in_order_until_they_are_acknowledged,
                a_second_consumer_waits_until_the_hold_is_over,
                a_newer_token_takes_over_at_once,
                a_consumer_that_lost_its_lease_gets_nothing,
                an_item_ends_with_its_lifetime,
                new_work_wakes_who_waits,
                a_full_queue_refuses_the_whole_commit,
            }
            concurrency {
                racing_writers_lose_no_update,
                racing_holders_never_both_write,
                racing_claims_share_the_timers,
                racing_producers_keep_the_order_of_each,
            }
            model {
                random_steps_agree_with_the_reference,
            }
        })*
    };
}
