-- What Millpond sends (src/sink/statement.rs), for the columns that the traffic touches. What is in braces is filled in.
UPDATE subscription AS t SET
    tags = CASE WHEN e.tags IS NULL THEN t.tags
                WHEN e.removes THEN jsonb_strip_nulls(t.tags || e.tags)
                ELSE t.tags || e.tags END,
    counts = CASE WHEN e.counts IS NULL THEN t.counts
                  ELSE t.counts || (SELECT jsonb_object_agg(d.key, COALESCE((t.counts ->> d.key)::int8, 0) + d.value::int8)
                                    FROM jsonb_each_text(e.counts) AS d) END,
    device_type = COALESCE(e.device_type, t.device_type),
    identifier = COALESCE(e.identifier, t.identifier),
    source_incarnation = {incarnation}, source_leader_epoch = 0, source_offset = e.source_offset,
    updated_at = to_timestamp(e.ms / 1000.0)
FROM {updates}
WHERE t.app_id = e.app_id AND t.subscription_id = e.subscription_id
  AND (t.source_incarnation, t.source_leader_epoch, t.source_offset) < ({incarnation}, 0, e.source_offset)
