select musician_id, 'Ann' as first_name, 'No. ' || musician_id as last_name, 'Ann No. ' || musician_id as full_name, null::varchar as email
from {{ source('office', 'pay') }}
