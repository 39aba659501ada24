with source as (
    select * from {{ source('github', 'contributors') }}
),

renamed as (
    select
        cast(repository_id as {{ dbt.type_string() }}) as repository_id,
        cast(contributor_id as {{ dbt.type_string() }}) as contributor_id,
        cast(name as {{ dbt.type_string() }}) as contributor_name,
        cast(email as {{ dbt.type_string() }}) as contributor_email,
        cast(commit_count as {{ dbt.type_bigint() }}) as recorded_commits,
        cast(first_authored_at as {{ dbt.type_timestamp() }}) as first_authored_at,
        cast(last_authored_at as {{ dbt.type_timestamp() }}) as last_authored_at,
        cast(ingested_at as {{ dbt.type_timestamp() }}) as ingested_at
    from source
)

select * from renamed
