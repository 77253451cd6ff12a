-- What the updates in table message make of the rows in table laid, one after the other. By Postgres alone: no consumer's code
-- is in it.
SET work_mem = '256MB';
CREATE TEMP TABLE updates AS
SELECT (value ->> 'app_id')::uuid AS app_id, (value ->> 'subscription_id')::uuid AS subscription_id, partition, source_offset, value
FROM message;

-- The last value of a name stays. Null and an empty text remove it.
CREATE TEMP TABLE tags AS
SELECT app_id, subscription_id, jsonb_object_agg(tag.key, NULLIF(tag.value, '""') ORDER BY source_offset) AS tags
FROM updates, jsonb_each(value -> 'tags') AS tag GROUP BY 1, 2;

CREATE TEMP TABLE counts AS
SELECT app_id, subscription_id, jsonb_object_agg(key, total) AS counts
FROM (SELECT app_id, subscription_id, key, sum(added::int8)::int8 AS total
      FROM (SELECT app_id, subscription_id, count.key, count.value AS added
            FROM updates, jsonb_each_text(value -> 'counts') AS count
            UNION ALL
            SELECT app_id, subscription_id, count.key, count.value FROM laid, jsonb_each_text(counts) AS count) AS each
      GROUP BY 1, 2, 3) AS totals
GROUP BY 1, 2;

CREATE TEMP TABLE set_columns AS
SELECT app_id, subscription_id, max(source_offset) AS source_offset,
    (array_agg(value ORDER BY source_offset DESC))[1] AS last,
    (array_agg(value ->> 'device_type' ORDER BY source_offset DESC) FILTER (WHERE value ? 'device_type'))[1] AS device_type,
    (array_agg(value ->> 'identifier' ORDER BY source_offset DESC) FILTER (WHERE value ? 'identifier'))[1] AS identifier
FROM updates GROUP BY 1, 2;

CREATE TABLE expected_:topic AS
SELECT app_id, subscription_id, s.source_offset, s.last, COALESCE(c.counts, '{}') AS counts,
    jsonb_strip_nulls(COALESCE(l.tags, '{}') || COALESCE(t.tags, '{}')) AS tags,
    COALESCE(s.device_type, l.device_type) AS device_type, COALESCE(s.identifier, l.identifier) AS identifier
FROM set_columns AS s LEFT JOIN tags AS t USING (app_id, subscription_id) LEFT JOIN counts AS c USING (app_id, subscription_id)
    LEFT JOIN laid AS l USING (app_id, subscription_id);
CREATE TABLE end_:topic AS
SELECT DISTINCT ON (partition) app_id, subscription_id, source_offset FROM updates ORDER BY partition, source_offset DESC;
ANALYZE expected_:topic;
ANALYZE end_:topic;
