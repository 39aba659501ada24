with musicians as (
    select * from {{ ref('br_supabase_musician') }}
),

versions as (
    select
        *,
        row_number() over (partition by musician_id order by dbt_valid_from desc, dbt_scd_id desc) as recency
    from {{ ref('musician_snapshot') }}
),

-- Payments outlive their musicians: whoever was deleted keeps the row last seen.
deleted as (
    select versions.*
    from versions
    left join musicians
        on versions.musician_id = musicians.musician_id
    where versions.recency = 1 and musicians.musician_id is null
),

known as (
    select
        musician_id,
        first_name,
        last_name,
        email,
        instrument,
        is_active,
        hired_on,
        false as is_deleted,
        updated_at
    from musicians
    union all
    select
        musician_id,
        first_name,
        last_name,
        email,
        instrument,
        false as is_active,
        hired_on,
        true as is_deleted,
        updated_at
    from deleted
),

final as (
    select
        musician_id,
        first_name,
        last_name,
        trim(coalesce(first_name, '') || ' ' || coalesce(last_name, '')) as full_name,
        email,
        instrument,
        is_active,
        hired_on,
        is_deleted,
        updated_at
    from known
)

select * from final
