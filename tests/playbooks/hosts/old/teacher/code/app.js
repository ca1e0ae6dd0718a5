// The virtual teacher: takes bookings from Redis, keeps them, and has the push hosts air them.
'use strict';

const VERSION = '3.1.0';

const config = require('./config/default.json');
