'use strict';

// send_http_post of 3.1.0
module.exports = {};
