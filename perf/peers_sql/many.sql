unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::bool[], $5::jsonb[], $6::text[], $7::text[], $8::int8[], $9::int8[])
AS e(app_id, subscription_id, tags, removes, counts, device_type, identifier, source_offset, ms)
