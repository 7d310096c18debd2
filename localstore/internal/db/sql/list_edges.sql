select referrer, reference from Refs order by referrer
