with source as (
    select * from {{ source('github', 'repositories') }}
),

renamed as (
    select
        cast(repository_id as {{ dbt.type_string() }}) as repository_id,
        cast(name as {{ dbt.type_string() }}) as repository_name,
        cast(url as {{ dbt.type_string() }}) as repository_url,
        cast(default_branch as {{ dbt.type_string() }}) as default_branch,
        cast(head_hash as {{ dbt.type_string() }}) as head_hash,
        cast(is_shallow as boolean) as is_shallow,
        cast(commit_count as {{ dbt.type_bigint() }}) as recorded_commits,
        cast(ingested_at as {{ dbt.type_timestamp() }}) as ingested_at
    from source
)

select * from renamed
