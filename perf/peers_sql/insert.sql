-- Makes the rows that the update did not find, and leaves those that are there.
INSERT INTO subscription
    (app_id, subscription_id, tags, counts, device_type, identifier,
    source_incarnation, source_leader_epoch, source_offset, updated_at)
SELECT e.app_id, e.subscription_id, COALESCE(jsonb_strip_nulls(e.tags), '{}'), COALESCE(e.counts, '{}'),
    e.device_type, e.identifier, {incarnation}, 0, e.source_offset, to_timestamp(e.ms / 1000.0)
FROM {updates}
ON CONFLICT DO NOTHING
