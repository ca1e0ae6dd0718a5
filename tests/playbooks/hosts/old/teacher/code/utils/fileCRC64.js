'use strict';

// fileCRC64 of 3.1.0
module.exports = {};
