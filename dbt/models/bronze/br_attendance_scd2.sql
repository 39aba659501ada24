{#- BigQuery cannot delete and insert. It merges by version, so a version that leaves the log stays until a refresh. -#}
{{
    config(
        materialized='incremental',
        unique_key='scd_id' if target.type == 'bigquery' else 'natural_key',
        incremental_strategy='merge' if target.type == 'bigquery' else 'delete+insert',
        on_schema_change='fail',
        contract={'enforced': true},
    )
}}

with log as (
    select
        *,
        cast(service_id as {{ dbt.type_string() }})
        || '-'
        || cast(musician_id as {{ dbt.type_string() }}) as natural_key
    from {{ ref('br_supabase_attendance') }}
),

identified as (
    select
        {{ surrogate_key([
            'natural_key',
            epoch_microseconds('effective_from'),
            epoch_microseconds('recorded_at'),
            'status',
        ]) }} as scd_id,
        *
    from log
),

-- Airbyte delivers at least once: the same change may come again with a later sync.
numbered as (
    select
        *,
        row_number() over (
            partition by scd_id
            order by _airbyte_emitted_at, _airbyte_ab_id
        ) as delivery
    from identified
),

changes as (
    select * from numbered
    where delivery = 1
),

{% if is_incremental() %}

    -- Every version is kept, so a natural key is up to date exactly when the log and this table name the same
    -- ones: however late a change comes, and even if the log was loaded anew without some.
    touched as (
        select distinct coalesce(changes.natural_key, known.natural_key) as natural_key
        from changes
        full outer join {{ this }} as known
            on changes.scd_id = known.scd_id
        where changes.scd_id is null or known.scd_id is null
    ),

    considered as (
        select changes.*
        from changes
        inner join touched
            on changes.natural_key = touched.natural_key
    ),

{% else %}

    considered as (
        select * from changes
    ),

{% endif %}

-- What is recorded later says what is true from its `effective_from` on, so it replaces every earlier record
-- that was to hold from the same moment or a later one.
compared as (
    select
        *,
        min(effective_from) over (
            partition by natural_key
            order by recorded_at, updated_at, attendance_id, scd_id
            rows between 1 following and unbounded following
        ) as earliest_later_record,
        max(_airbyte_emitted_at) over (partition by natural_key) as last_emitted_at
    from considered
),

judged as (
    select
        *,
        coalesce(earliest_later_record <= effective_from, false) as is_superseded
    from compared
),

ordered as (
    select
        *,
        lead(effective_from) over (
            partition by natural_key, is_superseded
            order by effective_from, scd_id
        ) as next_effective_from
    from judged
),

final as (
    select
        scd_id,
        natural_key,
        attendance_id,
        service_id,
        musician_id,
        status,
        effective_from,
        case when is_superseded then effective_from else next_effective_from end as effective_to,
        not is_superseded and next_effective_from is null as is_current,
        is_superseded,
        recorded_at,
        _airbyte_emitted_at as inserted_at,
        last_emitted_at as updated_at
    from ordered
)

select * from final
