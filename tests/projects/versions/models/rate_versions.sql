select * from {{ source('raw', 'rates') }}
{% if is_incremental() %}
where recorded_at > (select max(recorded_at) from {{ this }})
{% endif %}
