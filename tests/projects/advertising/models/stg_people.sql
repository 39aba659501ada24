select person_id from {{ source('crm', 'people') }}
