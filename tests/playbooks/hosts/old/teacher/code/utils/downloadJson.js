'use strict';

// downloadJson of 3.1.0
module.exports = {};
